# syntax=docker/dockerfile:1
# CPU server with the demo bundle. Not built in this project's CI, which has no Docker engine; the same steps
# (wheel, install with constraints, serve) are run outside Docker by scripts/check_wheel.sh.
#
#   docker build -t dimml .
#   docker run --rm -p 8000:8000 -p 8001:8001 dimml
#   docker run --rm -p 8000:8000 -p 8001:8001 -v /path/to/repository:/models:ro dimml

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN pip install --no-cache-dir build==1.3.0
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY core core
COPY training training
COPY export export
COPY server server
COPY clients clients
RUN python -m build --wheel --outdir /wheels

FROM python:3.11-slim-bookworm AS serve
RUN groupadd --gid 10001 dimml && useradd --uid 10001 --gid dimml --no-create-home --shell /usr/sbin/nologin dimml
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /tmp/wheels
RUN wheel=$(ls /tmp/wheels/*.whl) \
    && pip install --no-cache-dir -c /tmp/constraints.txt "dimml[serve] @ file://$wheel" \
    && rm -r /tmp/wheels /tmp/constraints.txt
COPY --chown=dimml:dimml model_repository /models
USER dimml
WORKDIR /tmp
# Docker kills 10 s after its SIGTERM: requests in flight must be answered, and the server gone, before that.
ENV PYTHONUNBUFFERED=1 DIMML_GRACE_S=8
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
ENTRYPOINT ["dimml", "serve"]
CMD ["--repository", "/models", "--host", "0.0.0.0"]
