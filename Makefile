# make train   train CartPole-v1 until it is solved; ARGS="..." goes to `distdqn train` instead
# make test    run the tests, all but the long ones
# make test-long  run the long ones, for which `make test` has shorter versions
# make lint    ruff and mypy
# make docs    write the tables of docs/ that come from the code
# make install .venv with the pinned dependencies
# make bench-check  fail if sampling, updating or acting have become slower than recorded in
#              benchmarks/results/check.json; SELFTEST=1 shows that a slowdown fails, UPDATE=1
#              records anew, RECORD=FILE takes another record
#
# PYTHON names the interpreter (3.11 or later), VENV the environment's folder.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
INPUTS = pyproject.toml constraints.txt

.DELETE_ON_ERROR:
.PHONY: train test test-long lint docs install bench-check

train: $(VENV)/.installed
	$(VENV)/bin/distdqn train $(or $(ARGS),--preset cartpole)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest

test-long: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -m long

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(VENV)/.installed
	$(VENV)/bin/python docs/tables.py

install: $(VENV)/.installed

bench-check: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/check.py $(if $(SELFTEST),--selftest) $(if $(UPDATE),--update) \
	  $(if $(RECORD),--record $(RECORD)) $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "distdqn needs Python 3.11 or later, $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1 || true);" \
	    "name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -f $(VENV)/bin/python; \
	  echo "$(PYTHON) cannot make a virtual environment;" \
	    "on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: $(INPUTS) | $(VENV)/bin/python
	@echo "installing distdqn into $(VENV)"
	@$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(INPUTS) | $(VENV)/bin/python
	@echo "installing distdqn with its test tools into $(VENV)"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@$(PIP) -c constraints.txt --no-deps minatar
	@touch $@ $(VENV)/.installed
