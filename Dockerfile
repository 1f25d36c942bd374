# Two images from one file: `api` (the HTTP side, the dispatcher and the command line; no torch) and `worker`, which
# `worker-compile` extends by compilers.
#   docker build --target api    -t darkroom-api .
#   docker build --target worker -t darkroom-worker .
# The worker takes PyPI's torch: on x86-64 that brings CUDA's own libraries, so python-slim is enough as a base and
# the host needs only the NVIDIA driver and container toolkit. For a small image without CUDA, name an index that has
# the CPU build: --build-arg PIP_EXTRA_INDEX_URL=… (deploy/README.md says which).
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /opt/darkroom
COPY pyproject.toml constraints.txt ./
COPY deploy/requirements.py ./deploy/

FROM build AS build-api
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 deploy/requirements.py api s3 tracing > requirements.txt \
    && /opt/darkroom/bin/pip install --requirement requirements.txt --constraint constraints.txt \
    && /opt/darkroom/bin/pip uninstall --yes pip setuptools

FROM build AS build-worker
ARG PIP_EXTRA_INDEX_URL=
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 deploy/requirements.py worker s3 tracing quantization-gguf quantization-torchao > requirements.txt \
    && /opt/darkroom/bin/pip install --requirement requirements.txt --constraint constraints.txt \
    && /opt/darkroom/bin/pip install --no-deps --constraint constraints.txt spandrel \
    && /opt/darkroom/bin/pip uninstall --yes pip setuptools

FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.3.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Darkroom" \
      org.opencontainers.image.description="The image-generation service that a team puts in front of its GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --system --gid 10001 darkroom \
    && useradd --system --uid 10001 --gid darkroom --home-dir /tmp --shell /usr/sbin/nologin darkroom \
    && install --directory --owner darkroom --group darkroom /data /data/huggingface
ENV PATH=/opt/darkroom/bin:$PATH \
    PYTHONPATH=/srv/darkroom \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DARKROOM_DATA=/data \
    HF_HOME=/data/huggingface
WORKDIR /srv/darkroom
COPY contracts/ contracts/
VOLUME /data

FROM runtime AS api
COPY --from=build-api /opt/darkroom /opt/darkroom
COPY models/catalogue.toml models/
COPY cli/ cli/
COPY app/ app/
COPY dispatcher/ dispatcher/
RUN python3 -m compileall -q /srv/darkroom
USER 10001:10001
ENV DARKROOM_API_HOST=0.0.0.0 DARKROOM_API_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['DARKROOM_API_PORT'] + '/healthz', timeout=9)"]
CMD ["python3", "-m", "app"]

FROM runtime AS worker
COPY --from=build-worker /opt/darkroom /opt/darkroom
COPY models/ models/
COPY worker/ worker/
RUN python3 -m compileall -q /srv/darkroom
USER 10001:10001
# Only /data and /tmp are writable; caches of libraries go there.
ENV HF_HUB_DISABLE_TELEMETRY=1 TORCHINDUCTOR_CACHE_DIR=/tmp/torch
HEALTHCHECK --interval=10s --timeout=10s --start-period=300s --retries=3 CMD ["python3", "-m", "worker.healthcheck"]
CMD ["python3", "-m", "worker"]

# The worker with the compilers that DARKROOM_WORKER_COMPILE needs, and a cache on /data: /tmp may be mounted noexec.
FROM worker AS worker-compile
USER 0:0
# hadolint ignore=DL3008 # whatever compilers the base image's release has
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
ENV TORCHINDUCTOR_CACHE_DIR=/data/torch TRITON_CACHE_DIR=/data/triton CC=gcc CXX=g++
