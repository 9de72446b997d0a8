# syntax=docker/dockerfile:1
# Three images, none built in this project's CI, which has no Docker engine; what can be tried without one is tried
# (docs/deploy.md).
#
#   docker build --target serve -t dimml-gateway:0.1.0 .            # CPU, with the demo bundle: serves by itself
#   docker build --target serve-gpu -t dimml-gateway-gpu:0.1.0 .    # the same on an NVIDIA GPU
#   docker build --target triton -t dimml-triton:0.1.0 .            # Triton, with what a bundle's models import
#
#   docker run --rm -p 8000:8000 -p 8001:8001 dimml-gateway:0.1.0
#   docker run --rm -p 8000:8000 -p 8001:8001 -v /path/to/repository:/models:ro dimml-gateway:0.1.0

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN pip install --no-cache-dir build==1.6.1
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY core core
COPY training training
COPY export export
COPY server server
COPY clients clients
RUN python -m build --wheel --outdir /wheels

FROM python:3.11-slim-bookworm AS gateway
RUN groupadd --gid 10001 dimml && useradd --uid 10001 --gid dimml --no-create-home --shell /usr/sbin/nologin dimml
COPY --chown=dimml:dimml model_repository /models
WORKDIR /tmp
# Docker kills 10 s after its SIGTERM: requests in flight must be answered, and the server gone, before that.
ENV PYTHONUNBUFFERED=1 DIMML_GRACE_S=8
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
ENTRYPOINT ["dimml", "serve"]
CMD ["--repository", "/models", "--host", "0.0.0.0"]

FROM gateway AS serve-gpu
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
# The extras bring the CUDA libraries of the version that this onnxruntime-gpu is built for; the host needs the driver.
RUN wheel=$(ls /tmp/wheels/*.whl) \
    && pip install --no-cache-dir -c /tmp/constraints.txt "dimml[serve-gpu] @ file://$wheel" "onnxruntime-gpu[cuda,cudnn]==1.31.1" \
    && find /usr/local/lib/python3.11/site-packages/nvidia -type d -name lib > /etc/ld.so.conf.d/nvidia-from-pip.conf \
    && ldconfig \
    && rm -r /tmp/wheels /tmp/constraints.txt
USER 10001

FROM nvcr.io/nvidia/tritonserver:26.10-py3 AS triton
RUN groupadd --gid 10001 dimml && useradd --uid 10001 --gid dimml --no-create-home --shell /usr/sbin/nologin dimml \
    && install -d -o dimml -g dimml /models /var/cache/dimml
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
# Into the Python that Triton's Python backend runs: it is Ubuntu's own, which pip must be told that it may change.
RUN wheel=$(ls /tmp/wheels/*.whl) \
    && pip install --no-cache-dir --break-system-packages -c /tmp/constraints.txt "dimml @ file://$wheel" \
    && rm -r /tmp/wheels /tmp/constraints.txt
USER 10001
# Where ONNX Runtime's TensorRT provider keeps its engines (docs/tensorrt.md).
WORKDIR /var/cache/dimml
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
# One encoder that does not load must not keep the others from answering.
CMD ["tritonserver", "--model-repository=/models", "--exit-on-error=false", "--strict-readiness=false"]

# The last stage is what `docker build` makes where no target is named.
FROM gateway AS serve
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
RUN wheel=$(ls /tmp/wheels/*.whl) \
    && pip install --no-cache-dir -c /tmp/constraints.txt "dimml[serve] @ file://$wheel" \
    && rm -r /tmp/wheels /tmp/constraints.txt
USER 10001
