# make run    sets everything up in .venv (once) and runs the main scenario
# make test   runs the tests; make lint: formatting rules, types, import rules
# make help   lists the rest
#
# torch comes from your default index. For its small CPU build:
#   make run PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_ARGS ?=
SCENARIO ?= scenarios/magent_256.yaml
ARGS ?=
TEST_ARGS ?=

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run test lint wheel-check clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(READY)  ## Create .venv with everything installed

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	touch $(READY)

run: $(READY)  ## Run SCENARIO (default scenarios/magent_256.yaml), with ARGS="key=value ..."
	$(BIN)/f2a2-sim run $(SCENARIO) $(ARGS)

test: $(READY)  ## Run the tests, with TEST_ARGS="-k name"
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TEST_ARGS)

lint: $(READY)  ## Check style (ruff), types (mypy --strict) and import rules (import-linter)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel-check: $(READY)  ## Build a wheel, install it in a fresh venv and look for the shipped data
	$(BIN)/python tests/wheel_check.py

clean:  ## Remove .venv and caches, but no runs
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
