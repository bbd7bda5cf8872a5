# Everything a user or CI needs; `make serve` and `make test` set up what they lack.
VENV := .venv
BIN := $(VENV)/bin
# Nothing but errors; a package without a wheel is built as pip will always do.
PIP := $(BIN)/pip -q --disable-pip-version-check
# The system's interpreter first: an unprivileged account can reach it too.
PYTHON ?= $(shell for p in /usr/bin/python3 python3 python3.11 python3.12 python3.13; do \
	"$$p" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$p" && break; done)
# One more than there are processors usually are: many tests wait for something to be noticed.
WORKERS ?= 3
.DEFAULT_GOAL := help

.PHONY: help setup serve test test-quick test-faults test-applications soak test-all test-fresh test-image test-systemd \
	docs docs-serve bench lint format lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "OpenRDB needs Python 3.11 or newer with venv (Debian: apt install python3-venv)"; exit 1; }
	@echo "· creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "· installing the locked dependencies (up to a minute)"
	@$(PIP) install --use-pep517 --require-hashes -r requirements.lock
	@$(PIP) install --use-pep517 --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "· installing the development tools (up to a minute)"
	@$(PIP) install --use-pep517 --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.docs: requirements-docs.lock $(VENV)/.runtime
	@echo "· installing what makes the documentation's site"
	@$(PIP) install --use-pep517 --require-hashes -r requirements-docs.lock
	@touch $@

setup: $(VENV)/.runtime ## Install the locked dependencies and the engine bundles
	@$(BIN)/openrdb engines install

serve: setup ## Set everything up and run the service
	@exec $(BIN)/openrdb serve $(ARGS)

test: setup $(VENV)/.dev lint ## Set everything up and pass the tests
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-quick: setup $(VENV)/.dev ## The tests that start no service, in about a minute
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-faults: setup $(VENV)/.dev ## Every fault at every step of every operation; over an hour
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m faults --all-faults $(ARGS)

test-applications: setup $(VENV)/.dev ## Real applications, fetched from their registries; half an hour
	@$(BIN)/pytest -n 1 -m applications tests/applications $(ARGS)

soak: setup $(VENV)/.dev ## Half an hour of random calls and kills on twenty instances
	@SOAK_SECONDS=$${SOAK_SECONDS:-1800} $(BIN)/pytest -s tests/soak $(ARGS)

test-all: setup $(VENV)/.dev ## The tests on every version of the engines
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal --all-versions $(ARGS)

test-fresh: ## Both commands on a bare Debian 12 and 13; needs root and debootstrap
	@tests/fresh/run $(ARGS)

test-image: ## The container recipe in a bare Debian; needs root and debootstrap
	@tests/fresh/image

test-systemd: setup ## The units under a live systemd of their own; needs root
	@tests/fresh/systemd

docs: $(VENV)/.docs ## Build the documentation's site: site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q
	@echo "· site/index.html"

docs-serve: $(VENV)/.docs ## Show it at http://127.0.0.1:8000
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve $(ARGS)

bench: setup $(VENV)/.dev ## Measure; writes bench/RESULTS.md
	@$(BIN)/python -m bench $(ARGS)

lint: $(VENV)/.dev ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## Put the code into shape
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: $(VENV)/.dev ## Renew the lock files after a change of pyproject.toml
	@$(PIP) install --use-pep517 uv
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --group build pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --group dev pyproject.toml -o requirements-dev.lock
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --group docs -c requirements-dev.lock pyproject.toml -o requirements-docs.lock

clean: ## Remove what setup and the tools made here (never databases)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis dist site
