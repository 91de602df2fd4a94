# `make` prints this help. Every target sets up what it needs first; a second run finds it done.
VENV ?= .venv
# The first that really runs and is new enough: a version manager may put names on PATH that answer nothing.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v $$name; break; fi; done)
BIN := $(VENV)/bin
PY := $(BIN)/python
SETUP := $(VENV)/.installed apps/devnet/node_modules/.installed
# What the image holds; what the local stack needs besides; what tests and checks need besides.
LOCKS := requirements.lock requirements-desk.lock requirements-dev.lock
NAME ?= stack
# Processes that run tests side by side. Some of the longest wait for limits in seconds, so two cores bear four.
WORKERS ?= 4
export STAKING_HOME ?= $(CURDIR)/.staking
# Where it is set, each of the many processes that tests and the stack start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up down status test prove bench lint audit coverage format migrate migrate-down schema docs examples additions lock contracts clean

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SETUP) ## Create the virtual environment and install everything, pinned

demo: $(SETUP) ## Start all parts, drive one whole staking life, check it against the chain, stop
	$(BIN)/staking demo

up: $(SETUP) ## Start the local stack and leave it running
	$(BIN)/staking up --detach

down: $(SETUP) ## Stop the local stack
	$(BIN)/staking down

status: $(SETUP) ## Show what runs and where
	$(BIN)/staking status

test: $(SETUP) ## Run all tests on real servers (PostgreSQL, Valkey, anvil)
	$(PY) -m pytest -n $(WORKERS) -m "not prove"

prove: $(SETUP) ## Run the long proofs (crash matrices, long histories, lives under fire), or some: PROVE=tests/property
	$(PY) -m pytest -n $(WORKERS) -m prove $(PROVE)

bench: $(SETUP) ## Measure a subject: NAME=stack (the default), or another module of tests/bench
	$(PY) -m tests.bench.$(NAME)

lint: $(SETUP) ## Check style, types, import rules, dead code, the house's measures and generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PY) -m apps.local.dead_code
	$(PY) -m apps.local.house --check
	$(PY) -m apps.local.generated --check

audit: $(SETUP) ## Ask what is known against the locked dependencies; says so where there is nobody to ask
	$(PY) -m apps.local.dependencies

coverage: $(SETUP) ## Run the unit tests and hold the share of lines that they reach against its floor
	$(PY) -m coverage run -m pytest -m "not prove" tests/unit
	$(PY) -m coverage report

format: $(SETUP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

migrate: $(SETUP) ## Migrate all databases up (of the running stack, else of each service's .env)
	$(BIN)/staking migrate

migrate-down: $(SETUP) ## Migrate all databases down to nothing
	$(BIN)/staking migrate --down

schema: docs

docs: $(SETUP) ## Write what docs/ shows of the code: tables, states, codes, the drawing of the house
	$(PY) -m apps.local.generated

examples: $(SETUP) ## Take the examples of docs/api anew, from a run of every operation
	$(PY) -m tests.support.examples

additions: $(SETUP) ## List what services promise beyond tests/unit/contract/before; read the difference before you commit it
	$(PY) -m tests.support.contract --additions

lock: ## Pin the newest releases that setup.cfg allows, a lock file each group; needs uv
	.ci/lock

contracts: $(SETUP) ## Compile the devnet's contracts again
	cd apps/devnet && node compile.js

clean: ## Remove the environment and the local stack's data (stops it first)
	-test -x $(BIN)/staking && $(BIN)/staking down
	rm -rf $(VENV) apps/devnet/node_modules $(STAKING_HOME)

$(VENV)/.installed: $(LOCKS) setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is missing. Install it, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes $(LOCKS:%=-r %)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

apps/devnet/node_modules/.installed: apps/devnet/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing. Install Node.js 20 or newer, which brings it."; exit 1; }
	npm ci --prefix apps/devnet --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
