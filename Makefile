# Nothing but Python 3.10 or newer with venv, and make, is needed to begin. Everything is installed
# into $(VENV), which is kept until pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH ?= sidecar hook_overhead inside
BENCH_ARGS ?=
COMPAT_ARGS ?=
DOCS_ARGS ?=
DASHBOARDS_ARGS ?=
DEPLOY_ARGS ?=
PICTURE_ARGS ?=
WHEEL_DIR ?= dist

BIN := $(VENV)/bin
# Twice quiet: errors only. An editable install warns of itself at length.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
# A process a core; what tests/real starts runs one at a time when the rest is done (tests/scheduling.py).
# In one process, as a debugger needs it: TEST_ARGS="-n 0".
# Bytecode is kept, whatever the shell says: else each process compiles tests and package anew.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n logical --maxprocesses=8

.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.sidecar ## Run the whole path on a simulated GPU: make demo DEMO_ARGS="--seconds 10"
	$(BIN)/joulescope demo $(DEMO_ARGS)

test: $(VENV)/.dev ## Run all tests, against real vLLM and Prometheus too where they can be had
	tools/system-parts
	$(PYTEST) $(TEST_ARGS)

test-fast: $(VENV)/.dev ## Run the tests that start no real outside part, save the slow ones
	SHORT_TESTS=1 $(PYTEST) -m "not real and not slow" $(TEST_ARGS)

lint: $(VENV)/.dev layers ## Check style, types, layers and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.11 --package grafana
	$(BIN)/hadolint Dockerfile

layers: $(VENV)/.dev ## Check which room imports which, and the sizes of modules and functions
	$(BIN)/python tools/layers.py

bench: $(VENV)/.dev ## Run the benchmarks, about 20 minutes: make bench BENCH=sidecar BENCH_ARGS="--part replay"
	for each in $(BENCH); do $(BIN)/python benchmarks/$$each.py $(BENCH_ARGS) || exit 1; done

compat: $(VENV)/.dev ## Check the hook against the sources of real vLLM releases
	$(BIN)/python tools/compat.py $(COMPAT_ARGS)

docs: $(VENV)/.dev ## Write the generated pages again; DOCS_ARGS=--check only looks
	$(BIN)/python -m tools.generate_docs $(DOCS_ARGS)

dashboards: $(VENV)/.dev ## Write the Grafana dashboards again; DASHBOARDS_ARGS=--check only looks
	$(BIN)/python -m grafana $(DASHBOARDS_ARGS)

deploy: $(VENV)/.dev ## Write the charts' pages again; DEPLOY_ARGS=--check only looks
	$(BIN)/python -m tools.chart_docs $(DEPLOY_ARGS)
	$(BIN)/python -m tools.kustomize $(DEPLOY_ARGS)

pictures: $(VENV)/.dev ## Draw the dashboards with Grafana's components; needs npm, chromium, prometheus
	$(PIP) --editable '.[pictures]'
	npm --prefix grafana/draw ci --no-audit --no-fund
	npm --prefix grafana/draw run build
	$(BIN)/python -m grafana.draw $(PICTURE_ARGS)

lock: $(VENV)/.made ## Renew the lock files of the image, with the newest packages that will do
	$(PIP) uv
	for each in "pyproject.toml --extra sidecar -o deploy/image/sidecar.lock" \
	            "pyproject.toml --extra sidecar --extra ledger -o deploy/image/ledger.lock" \
	            "deploy/image/build.in -o deploy/image/build.lock"; do \
	  $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
	    --no-annotate --no-header $$each || exit 1; done

wheel: $(VENV)/.made ## Build the wheel into $(WHEEL_DIR)
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEEL_DIR) .

clean: ## Remove what was built or cached; $(VENV) too
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is checked and made in two steps, so that the demo does not install test tools.
# pip is renewed first: the one that comes with Python 3.10 cannot install from pyproject.toml in place.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "joulescope needs Python 3.10 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	@touch $@

$(VENV)/.sidecar: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[sidecar]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(PIP) --editable '.[sidecar,test,spark,lint]'
	@touch $@ $(VENV)/.sidecar

.PHONY: help demo test test-fast lint layers bench compat docs dashboards deploy pictures lock wheel clean
