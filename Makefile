# The only door: people, the README and CI call the same targets. `make help` lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test lint format serve train bench bench-peers bench-train profile soak monitoring-test dashboards \
  lock image image-training image-openvino image-torch model-image image-test compose-test k8s-test k8s-rules \
  rollout-test hpa-test wheelhouse clean distclean

BIN := .venv/bin
# The service's port, and where the artifacts lie.
PORT ?= 8000
MODELS ?= models
# One more package index for another build of torch, e.g. the CPU one (README.md, "Install").
TORCH_INDEX ?=
# What builds images, and flags for it, e.g. DOCKER_FLAGS=--network=host.
DOCKER ?= docker
DOCKER_FLAGS ?=
# A repository to pack into the model image, and the image's tag; MODELS is the Makefile's own.
MODEL_TAG ?= 1
ENGINE = tools/container-engine
# Runs where the engine publishes its ports (a network namespace), with the engine's socket.
INSIDE = $(ENGINE) exec env DOCKER_HOST=unix:///var/tmp/container-engine/docker.sock PATH=/usr/bin:$$PATH
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse HEAD 2>/dev/null)

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.train ## train once, then serve on PORT and try a prediction; Ctrl-C stops it
	@$(BIN)/python tools/run_demo.py --repository $(MODELS) --port $(PORT)

test: lint ## everything CI asks: format, lint, types, every test
	@echo "pytest"
	@$(BIN)/python -m pytest

lint: .venv/.dev ## formatter check, linter, strict types
	@echo "ruff format --check" && $(BIN)/ruff format --check --quiet .
	@echo "ruff check" && $(BIN)/ruff check --quiet .
	@echo "mypy (about a minute the first time, then seconds)" && $(BIN)/python -m mypy

format: .venv/.dev ## format, and mend what the linter can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

serve: .venv/.train ## serve what is in MODELS, without training
	@exec $(BIN)/slipway serve --repository $(MODELS) --port $(PORT)

train: .venv/.train ## train, gate and publish one more version of the sentiment model
	@exec $(BIN)/slipway train sentiment --repository $(MODELS)

# One environment for all: the stamps say which extras it holds, and are older than what they were made from
# when pyproject.toml or the lock has changed. `dev` includes `train`, so either order of the two works.
.venv/.train: pyproject.toml constraints.txt
	@tools/setup train --torch-index "$(TORCH_INDEX)" --stamp .venv/.train

.venv/.dev: pyproject.toml constraints.txt
	@tools/setup train,dev --torch-index "$(TORCH_INDEX)" --stamp .venv/.train --stamp .venv/.dev

QUICK ?=
FULL ?=
MINUTES ?= 30
PEERS ?=
# The longest plan for all peers that fits so many minutes; empty: the whole one. RESUME=1: go on from the last run.
PEER_MINUTES ?=
RESUME ?=

bench: .venv/.train ## the served model against its limit and every target, then with OpenVINO (QUICK=1: two minutes)
	@exec $(BIN)/python -m benchmarks.bench --repository $(MODELS) $(if $(QUICK),--quick,--write-docs)

bench-peers: .venv/.train ## the same load on other servers, each in its own environment (PEERS="mosec litserve", PEER_MINUTES=30)
	@exec $(BIN)/python -m benchmarks.peers --repository $(MODELS) $(if $(QUICK),--quick) \
	  $(if $(PEER_MINUTES),--minutes $(PEER_MINUTES)) $(if $(RESUME),--resume) $(PEERS)

bench-train: .venv/.train ## training speed and accuracy against a plain Trainer (QUICK=1: speed only; FULL=1: all epochs)
	@exec $(BIN)/python -m benchmarks.train $(if $(QUICK),--epochs 0,$(if $(FULL),--full))

profile: .venv/.dev ## CPU time of the served model by thread, and a flame graph (as root, for py-spy)
	@exec $(BIN)/python -m benchmarks.profile --repository $(MODELS)

soak: .venv/.train ## MINUTES of mixed load; memory and open files over time
	@exec $(BIN)/python -m benchmarks.soak --repository $(MODELS) --minutes $(MINUTES)

monitoring-test: .venv/.dev ## rules, panels and alerts against a real Prometheus and Alertmanager
	@exec $(BIN)/python -m tools.monitoring_test

dashboards: .venv/.dev ## write monitoring/grafana/dashboards from tools/dashboards.py
	@exec $(BIN)/python -m tools.dashboards

lock: ## write constraints.txt anew from pyproject.toml
	@TORCH_INDEX="$(TORCH_INDEX)" tools/lock

image: ## build the service's image, slipway:VERSION
	$(DOCKER) build $(DOCKER_FLAGS) --target service --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	  --tag slipway:$(VERSION) .

image-training: ## build the training image, slipway-training:VERSION
	$(DOCKER) build $(DOCKER_FLAGS) --target training --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	  --build-arg TORCH_INDEX=$(TORCH_INDEX) --tag slipway-training:$(VERSION) .

image-openvino: ## build the service's image with OpenVINO, slipway-openvino:VERSION
	$(DOCKER) build $(DOCKER_FLAGS) --target service-openvino --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$(REVISION) --tag slipway-openvino:$(VERSION) .

image-torch: ## build the service's image with torch, slipway-torch:VERSION
	$(DOCKER) build $(DOCKER_FLAGS) --target service-torch --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$(REVISION) --build-arg TORCH_INDEX=$(TORCH_INDEX) --tag slipway-torch:$(VERSION) .

model-image: ## pack MODELS into slipway-model:MODEL_TAG and, with the service around it, slipway-baked:VERSION
	$(DOCKER) build $(DOCKER_FLAGS) -f Dockerfile.model --target model --build-arg MODEL_VERSION=$(MODEL_TAG) \
	  --tag slipway-model:$(MODEL_TAG) $(MODELS)
	$(DOCKER) build $(DOCKER_FLAGS) -f Dockerfile.model --target baked --build-arg SERVICE_IMAGE=slipway:$(VERSION) \
	  --tag slipway-baked:$(VERSION) $(MODELS)

TARGET ?= service
image-test: .venv/.dev ## size, contents, readiness and SBOM of a built image (TARGET=service-openvino); engine in mode `run`
	@tools/toolbox images
	@$(INSIDE) $(BIN)/python -m tools.image_test --target $(TARGET)

compose-test: .venv/.dev ## start the compose stack, use it, watch the alert, take it down (engine in mode `run`)
	@$(INSIDE) $(BIN)/python -m tools.compose_test

k8s-test: .venv/.dev ## render every overlay, check schemas of three Kubernetes versions, CRDs and policies
	@tools/toolbox render k8s
	@.venv/.tools/bin/python -m tools.k8s_test

k8s-rules: .venv/.dev ## wrap monitoring/rules/ into the PrometheusRule of k8s/
	@$(BIN)/python -m tools.k8s_rules

rollout-test: .venv/.train ## SIMULATED cluster: ten rolling restarts and a bad rollout under load, real processes
	@tools/toolbox render
	@$(BIN)/python -m tools.rollout_test $(ROLLOUT_FLAGS)

PLOT ?= docs/images/hpa-step.png
hpa-test: .venv/.train ## SIMULATED autoscaler under a step of load, over values measured on a real pod
	@tools/toolbox render
	@$(BIN)/python -m tools.hpa_test --plot $(PLOT)

wheelhouse: .venv/.train ## fetch torch's wheel for the training image, as this machine's pip finds it
	@$(BIN)/python -m pip download --no-deps --constraint constraints.txt --dest wheelhouse \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch

clean: ## remove caches and build products; .venv and models stay
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv and the wheelhouse too; models stay
	@rm -rf .venv wheelhouse
