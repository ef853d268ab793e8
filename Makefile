# Everything a newcomer needs. `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PHOTOS ?= bloodmnist-224
BROWSERS := chromium-headless-shell chromium google-chrome

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1

.DEFAULT_GOAL := help
.PHONY: help setup browser demo demo-256 demo-photos test test-all test-gpu lint bench proto clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make .venv and install everything into it

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

browser: ## Install Debian's headless Chromium, in which `make test` then tests the pages too
	@for name in $(BROWSERS); do command -v $$name && exit 0; done; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell fonts-dejavu-core

demo: setup ## Train, sample and judge on MNIST under privacy (ARGS="privacy.epsilon=1" for another budget)
	$(BIN)/dppm demo $(ARGS)

demo-256: setup ## The same for 256x256 images: letters of thousands of fonts (about 40 minutes)
	$(BIN)/dppm demo runs/demo-256 data=glyphs-aj privacy.unit=record model=pyramid_details sampler.per_class=150 $(ARGS)

demo-photos: setup ## The same for photographs: blood cells of MedMNIST (PHOTOS=NAME for a set of your store)
	@if [ $(PHOTOS) = bloodmnist-224 ]; then $(BIN)/dppm data fetch medmnist/bloodmnist@224; fi
	$(BIN)/dppm demo runs/demo-photos data=$(PHOTOS) model=pretrained_pyramid sampler.per_class=60 $(ARGS)

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## Lint, then the fast tests (unit, privacy, one round each through Flower and Ray)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-all: lint ## Also the slow statistical, training and fault tests
	$(BIN)/pytest -m "" --hypothesis-profile=explore $(ARGS)

test-gpu: setup ## On a machine with a GPU: questions, learners and samplers there, beside a CPU's (minutes)
	$(BIN)/pytest -m gpu $(ARGS)

bench: setup ## Run the benchmarks; results go to tests/benchmarks/results
	@for name in accountant directions encode gradients secure_sum; do echo "== $$name"; $(BIN)/python -m tests.benchmarks.$$name || exit 1; done

proto: setup ## Generate the sampling service's Python from its .proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. sampler/service/sampling.proto

clean: ## Remove the environment and the caches, never the runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
