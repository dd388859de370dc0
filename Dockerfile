# The images from one file: `service` (the default: no torch, no compiler, no pip), `service-openvino`, `service-torch` and
# `training`. Dockerfile.model packs artifacts.
# Plain instructions only, so that BuildKit and the classic builder both build it, without asking a registry for a
# front end. docs/containers.md says how to build, run and size them.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# ---- build: the locked dependencies of the serving half, then the code, in an environment that later stages copy ----
FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
# wheelhouse/ is optional: the pattern matches nothing where there is none, and constraints.txt always.
COPY constraints.txt wheelhous[e] /wheelhouse/
ENV PIP_CONSTRAINT=/wheelhouse/constraints.txt PIP_FIND_LINKS=/wheelhouse
WORKDIR /src
# pip stays outside: the environment is made without it and filled from there.
RUN python3 -m venv --without-pip /opt/slipway
COPY pyproject.toml ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > serve.txt \
 && python3 -m pip --python /opt/slipway/bin/python install --no-compile -r serve.txt
COPY README.md LICENSE ./
COPY artifact artifact
COPY cli cli
COPY inference inference
COPY service service
RUN python3 -m pip --python /opt/slipway/bin/python install --no-compile --no-deps .

# ---- slim: what serving never imports is taken out, and starting proves it ----
FROM build AS slim
# The hub clients come with tokenizers, for downloads that the service does not make.
RUN python3 -m pip --python /opt/slipway/bin/python uninstall -q -y \
      huggingface_hub hf-xet fsspec filelock tqdm httpx2 httpcore2 truststore PyYAML \
 && site=$(echo /opt/slipway/lib/python3*/site-packages) \
 && rm -rf "$site"/numpy/f2py "$site"/numpy/distutils "$site"/numpy/_core/include "$site"/numpy/_core/lib \
      "$site"/onnxruntime/quantization "$site"/onnxruntime/tools "$site"/onnxruntime/transformers \
 && find "$site" -depth -type d -name tests -exec rm -rf {} + \
 && find "$site" -name '*.pyi' -delete
# Byte code only for what a start imports: all of it would be 40 MB, none of it a second at every start. -I: the installed
# copy, not the one in /src, and with byte code whatever the environment says. By its path: `python3` stays the one with pip.
RUN /opt/slipway/bin/python -I -c "import cli.app, service.supervisor, service.server, inference.backends.onnx, uvicorn.loops.uvloop, uvicorn.protocols.http.httptools_impl, anyio._backends._asyncio" \
 && /opt/slipway/bin/python -I -m cli serve --help > /dev/null \
 && ! /opt/slipway/bin/python -c "import torch" 2> /dev/null

# ---- what every serving image has around its environment ----
FROM ${BASE_IMAGE} AS runtime
# The root file system may be read-only: byte code is in the image, and only /tmp is written to.
ENV PATH=/opt/slipway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    SLIPWAY_REPOSITORY=/models \
    SLIPWAY_HOST=0.0.0.0 \
    SLIPWAY_PORT=8000
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
# Alive, not ready: an engine may restart what is unhealthy, and waiting for a first model is no reason to.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['SLIPWAY_PORT']), timeout=2); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["slipway", "serve"]

# ---- service: onnxruntime ----
FROM runtime AS service
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="slipway" \
      org.opencontainers.image.description="Serves checked model artifacts over HTTP, on CPUs." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=slim /opt/slipway /opt/slipway

# ---- service-openvino: the same with OpenVINO beside onnxruntime ----
FROM slim AS slim-openvino
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['openvino'], sep='\n')" > more.txt \
 && python3 -m pip --python /opt/slipway/bin/python install --no-compile -r more.txt \
 && /opt/slipway/bin/python -I -c "import openvino; openvino.Core()"

FROM runtime AS service-openvino
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="slipway-openvino" \
      org.opencontainers.image.description="Serves checked model artifacts over HTTP, on CPUs, with OpenVINO." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=slim-openvino /opt/slipway /opt/slipway

# ---- service-torch: the same with torch, for TorchScript variants ----
FROM slim AS slim-torch
ARG TORCH_INDEX=
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['torchscript'], sep='\n')" > more.txt \
 && PIP_EXTRA_INDEX_URL=${TORCH_INDEX} python3 -m pip --python /opt/slipway/bin/python install --no-compile -r more.txt \
 && /opt/slipway/bin/python -I -c "import torch; torch.jit.script"

FROM runtime AS service-torch
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="slipway-torch" \
      org.opencontainers.image.description="Serves checked model artifacts over HTTP, on CPUs, TorchScript included." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=slim-torch /opt/slipway /opt/slipway

# ---- training: the same environment with the train extra; pip stays, since the packaged data come through it ----
FROM build AS build-training
ARG TORCH_INDEX=
COPY training training
RUN python3 -m venv /opt/slipway \
 && PIP_EXTRA_INDEX_URL=${TORCH_INDEX} /opt/slipway/bin/python -m pip install --no-compile '.[train]'

FROM ${BASE_IMAGE} AS training
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="slipway-training" \
      org.opencontainers.image.description="Trains, gates and publishes model artifacts." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build-training /opt/slipway /opt/slipway
# /cache is for any user: the training container runs as whoever owns the models.
RUN install -d -m 1777 /cache /models
ENV PATH=/opt/slipway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    SLIPWAY_REPOSITORY=/models \
    SLIPWAY_CACHE_DIR=/cache
# Checkpoints (runs/) go beside the cache, so that an interrupted training goes on where both are a volume.
WORKDIR /cache
USER 10001:10001
ENTRYPOINT ["slipway", "train"]
CMD ["sentiment"]

# The last stage is what `docker build .` makes.
FROM service
