# Every target sets up .venv by itself, from the locked versions, and touches nothing outside the project.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first of these that runs and is Python 3.11 or 3.12.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
PYTEST_ARGS ?=

.PHONY: help setup demo test lint bench lock

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

setup: $(READY)  ## make .venv with the locked versions

demo: $(READY)  ## fit on the built-in digits, serve, ask for one image
	$(BIN)/python scripts/demo.py

test: $(READY)  ## the quick tests; PYTEST_ARGS='-m ""' for all of them
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## the README's tables: serving the newest model, a sweep, training (two hours on two cores)
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/train.py

lock: $(READY)  ## resolve the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --group pyproject.toml:dev pyproject.toml -o requirements.lock
