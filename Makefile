# `make demo` and `make test` set everything up from nothing but Python 3.11+; see README.md.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEPENDS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-unit coverage check format clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("dimml needs Python 3.11 or newer, this is %d.%d; set PYTHON=..." % sys.version_info[:2]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# Serving and the client: no torch. Without pip's cache, so that trying the demo leaves nothing outside this folder.
$(VENV)/.serve: $(DEPENDS) | $(VENV)/bin/python
	$(PIP) install --quiet --no-cache-dir -c constraints.txt -e '.[serve,client]'
	@touch $@

# Everything, for development. constraints.txt names torch's version; which build that is (CPU, CUDA) is pip's
# configuration's choice: set PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to where CPU builds are, or it is several GB.
$(VENV)/.dev: $(DEPENDS) | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[train,export,serve,client,score,ray,dev]'
	@touch $@ $(VENV)/.serve

demo: $(VENV)/.serve ## Serve the demo bundle, predict sample clips over HTTP and gRPC, print the answers
	$(BIN)/python scripts/demo.py

serve: $(VENV)/.serve ## Serve the demo bundle until Ctrl-C
	$(BIN)/dimml serve --repository model_repository

# A process a core; a file's tests stay in one process, since they share what was costly to make, and so do all tests of
# Triton (tests/conftest.py). A process that dies ends the run: pytest-xdist would replace it, and with "loadfile" then
# wait for ever (its issue 1378). PYTEST_ARGS is for more: PYTEST_ARGS='--order-seed=random'.
# Compiled modules are kept whatever the caller's environment says: tests start hundreds of processes. With a process a
# core, more threads of one wait for each other; what looks like work is their spinning.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

test: $(VENV)/.dev ## Run all tests, as CI does
	$(PYTEST) $(PYTEST_ARGS)
	$(MAKE) coverage PYTEST_ARGS=

# Every process imports all test modules that it collects, so what the marker leaves out is not collected.
test-unit: $(VENV)/.dev ## Run the tests that need no server and are not slow
	$(PYTEST) -m 'unit and not slow' --ignore=tests/integration $(PYTEST_ARGS)

# What core's own unit tests reach of it, in this process: what decoding workers run is not seen. Apart from `make
# test-unit`, which it would slow down.
coverage: $(VENV)/.dev ## Hold the floors of what core's unit tests reach of core, and of its fusion
	$(PYTEST) -m 'unit and not slow' --cov=dimml --cov-report= tests/core $(PYTEST_ARGS)
	$(BIN)/python -m coverage report --fail-under=86 --skip-covered
	$(BIN)/python -m coverage report --fail-under=98 --include='*/dimml/fusion/*'

check: $(VENV)/.dev ## Format, lint, spelling, types, import boundaries
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_boundaries.py

format: $(VENV)/.dev ## Format and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove environments, caches and build results (not runs/)
	rm -rf .venv* build dist .cache .mypy_cache .ruff_cache .pytest_cache .coverage .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
