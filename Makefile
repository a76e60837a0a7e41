# Every target sets up .venv from the locked versions if needed, and touches nothing outside the project.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
DEVELOP := $(VENV)/.ready-develop
# The first of these that is Python 3.11 or 3.12.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
PYTEST_ARGS ?=

.PHONY: help setup demo test lint bench audit lock deploy rollout rollback

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(VENV) with the locked versions: 2 to 4 minutes"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes --no-deps -r requirements.lock
	$(INSTALL) --no-deps --editable .
	touch $@

$(DEVELOP): requirements-dev.lock $(READY)
	$(INSTALL) --require-hashes --no-deps -r requirements-dev.lock
	touch $@

setup: $(READY)  ## make .venv with the locked versions
	@echo "ready; in each terminal: source $(VENV)/bin/activate"

demo: $(READY)  ## fit on the built-in digits, serve, predict one image
	$(BIN)/python scripts/demo.py

test: $(DEVELOP)  ## the quick tests; PYTEST_ARGS='-m ""' for all of them
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(DEVELOP)  ## style, format, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEVELOP)  ## measure serving of the newest model, a sweep, training (two hours on two cores)
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/train.py

audit: $(DEVELOP)  ## fetch security advisories and check all locks; needs network (tests check the stored ones)
	$(BIN)/python scripts/audit.py --update

deploy:  ## start IMAGE behind HAProxy on this machine's Docker Swarm, at port PORT (3000)
	@deploy/swarm deploy $(IMAGE)

rollout: $(if $(COMPARE),$(READY))  ## replace the replicas by IMAGE, one at a time; not by a worse model on COMPARE=DATASET
	@deploy/swarm rollout $(IMAGE)

rollback:  ## return to the image before the last rollout
	@deploy/swarm rollback

LOCK := $(BIN)/uv pip compile --quiet $(LOCK_ARGS) --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header

lock: $(DEVELOP)  ## resolve pyproject.toml into the locks; LOCK_ARGS=--upgrade takes newer versions
	$(LOCK) pyproject.toml -o requirements.lock
	# The other locks use the versions of the first.
	$(LOCK) pyproject.toml --extra cluster --extra tracing --group pyproject.toml:dev --constraints requirements.lock -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra cluster --constraints requirements.lock -o requirements-cluster.lock
	$(LOCK) pyproject.toml --extra gpu --constraints requirements.lock -o requirements-gpu.lock
	$(LOCK) --group pyproject.toml:serve --constraints requirements.lock -o requirements-serve.lock
	$(LOCK) --group pyproject.toml:serve-tracing --constraints requirements.lock -o requirements-serve-tracing.lock
