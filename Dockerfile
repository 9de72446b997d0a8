# Three images. scripts/check_images.sh builds `serve` and `triton` with a Docker engine and asks the first; what stands in
# for their bases there, and what has not been run, is in docs/evidence/deploy.md. Run `make console` first, or the gateways
# lack the page /console.
#
#   docker build --target serve -t dimml-gateway:0.1.0 .            # CPU, with the demo bundle: serves by itself
#   docker build --target serve-gpu -t dimml-gateway-gpu:0.1.0 .    # the same on an NVIDIA GPU
#   docker build --target triton -t dimml-triton:0.1.0 .            # Triton, with what a bundle's models import
#
#   docker run --rm -p 8000:8000 -p 8001:8001 dimml-gateway:0.1.0
#   docker run --rm -p 8000:8000 -p 8001:8001 -v /path/to/repository:/models:ro dimml-gateway:0.1.0
#
# It needs BuildKit, which Docker uses by itself since 23.0. There is no `# syntax` line: it would have the engine fetch one
# more image, and run it, before the first step.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt /wheels/constraints.txt
RUN pip install --no-cache-dir -c /wheels/constraints.txt build hatchling
COPY pyproject.toml README.md LICENSE CHANGELOG.md constraints-triton.txt ./
COPY core core
COPY training training
COPY export export
COPY server server
COPY clients clients
COPY model_repository model_repository
COPY samples samples
RUN python -m build --wheel --no-isolation --outdir /wheels

# Packages are installed in stages of their own and copied from there as one environment: no wheel, no pip, no caches, and
# bytecode once.
FROM python:3.11-slim-bookworm AS environment
RUN apt-get update && apt-get install -y --no-install-recommends binutils
RUN python -m venv --without-pip /opt/dimml

FROM environment AS serve-environment
RUN --mount=type=bind,from=build,source=/wheels,target=/mnt \
    pip --python /opt/dimml/bin/python install --no-cache-dir -c /mnt/constraints.txt \
    "dimml[serve,otel] @ file://$(ls /mnt/*.whl)"
# A fifth of that serves nothing: packages' own tests, debug information, and ONNX Runtime once more, for programs in C.
# Libraries in *.libs stay as they are: auditwheel has moved their headers, strip would break them. Whether all still load
# is seen at once.
RUN cd /opt/dimml/lib/python3.11/site-packages \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && find . -name '*.so' -not -path '*.libs/*' -exec strip --strip-debug {} + \
    && rm onnxruntime/capi/libonnxruntime.so.* \
    && /opt/dimml/bin/python -c "import ctypes, pathlib; [ctypes.CDLL(str(p)) for p in pathlib.Path.cwd().rglob('*.so')]"

FROM environment AS serve-gpu-environment
# The extras bring the CUDA libraries of the version that this onnxruntime-gpu is built for; the host needs the driver.
RUN --mount=type=bind,from=build,source=/wheels,target=/mnt \
    pip --python /opt/dimml/bin/python install --no-cache-dir -c /mnt/constraints.txt \
    "dimml[serve-gpu,otel] @ file://$(ls /mnt/*.whl)" "onnxruntime-gpu[cuda,cudnn]==1.31.1"

FROM python:3.11-slim-bookworm AS gateway
RUN groupadd --gid 10001 dimml && useradd --uid 10001 --gid dimml --no-create-home --shell /usr/sbin/nologin dimml
COPY --chown=dimml:dimml model_repository /models
WORKDIR /tmp
# Docker kills 10 s after its SIGTERM: requests in flight must be answered, and the server gone, before that.
ENV PATH=/opt/dimml/bin:$PATH PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1 \
    DIMML_GRACE_S=8 DIMML_REPOSITORY=/models DIMML_HOST=0.0.0.0
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
ENTRYPOINT ["dimml", "serve"]

FROM gateway AS serve-gpu
COPY --from=serve-gpu-environment /opt/dimml /opt/dimml
RUN find /opt/dimml/lib/python3.11/site-packages/nvidia -type d -name lib > /etc/ld.so.conf.d/nvidia-from-pip.conf \
    && ldconfig \
    && dimml serve --print-config > /dev/null
USER 10001

FROM nvcr.io/nvidia/tritonserver:26.10-py3 AS triton
RUN groupadd --gid 10001 dimml && useradd --uid 10001 --gid dimml --no-create-home --shell /usr/sbin/nologin dimml \
    && install -d -o dimml -g dimml /models /var/cache/dimml
# Into the Python that Triton's Python backend runs: it is Ubuntu's own, which pip must be told that it may change.
RUN --mount=type=bind,from=build,source=/wheels,target=/mnt \
    PYTHONDONTWRITEBYTECODE=1 pip install --no-cache-dir --break-system-packages -c /mnt/constraints.txt \
    "dimml @ file://$(ls /mnt/*.whl)"
USER 10001
# Where ONNX Runtime's TensorRT provider keeps its engines (docs/tensorrt.md).
WORKDIR /var/cache/dimml
ENV ORT_DISABLE_TELEMETRY=1
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
# One encoder that does not load must not keep the others from answering.
CMD ["tritonserver", "--model-repository=/models", "--exit-on-error=false", "--strict-readiness=false"]

# The last stage is what `docker build` makes where no target is named.
FROM gateway AS serve
COPY --from=serve-environment /opt/dimml /opt/dimml
# Loads the whole server once: what does not load ends the build, and the standard library, which its image brings
# without bytecode, has that of all that serving uses; with a read-only root it would be compiled anew at each start.
RUN dimml serve --print-config > /dev/null
USER 10001
