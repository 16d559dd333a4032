# make train   train CartPole-v1 until it is solved; ARGS="..." goes to `distdqn train` instead
# make test    run the tests, all but the long ones
# make test-long  run the long ones, for which `make test` has shorter versions, and test-oldest
# make test-oldest  run a short suite with the lowest versions, in an environment of its own
# make lint    ruff and mypy
# make docs    write the tables of docs/ that come from the code
# make install .venv with the pinned dependencies
# make dist    build dist/*.tar.gz and dist/*.whl
# make bench-check  fail if sampling, updating or acting have become slower than recorded in
#              benchmarks/results/check.json; SELFTEST=1 shows that a slowdown fails, UPDATE=1
#              records anew, RECORD=FILE takes another record
#
# PYTHON names the interpreter (3.11 or later), VENV the environment's folder; OLDEST_PYTHON (3.10
# or later) and OLDEST_VENV those of test-oldest.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
OLDEST_PYTHON ?= $(PYTHON)
OLDEST_VENV ?= .venv-oldest

PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
# Configuration, envs, replay, checkpoints, a lockstep hash, videos, the command line, and
# on Ray: signals, its token, a CartPole that is learned.
OLDEST_TESTS = tests/config tests/envs/test_envs_make.py tests/envs/test_envs_stepper.py \
  tests/envs/test_envs_tables.py tests/acting/test_n_step.py tests/replay/test_replay.py \
  tests/weights tests/files tests/lockstep/test_weights_record.py tests/evaluation/test_video.py \
  tests/reporting tests/cli/test_cli_train.py tests/cli/test_doctor.py \
  tests/cli/test_command_runs.py \
  tests/run/test_train.py::test_training_learns_cartpole_beyond_chance
OLDEST_PIP = $(OLDEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check
INPUTS = pyproject.toml constraints.txt

.DELETE_ON_ERROR:
.PHONY: train test test-long test-oldest lint docs install dist bench-check

train: $(VENV)/.installed
	$(VENV)/bin/distdqn train $(or $(ARGS),--preset cartpole)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest

test-long: $(VENV)/.installed-dev test-oldest
	$(VENV)/bin/python -m pytest -m long

test-oldest: $(OLDEST_VENV)/.installed-oldest
	$(OLDEST_VENV)/bin/python -m pytest $(OLDEST_TESTS)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(VENV)/.installed
	$(VENV)/bin/python docs/tables.py

install: $(VENV)/.installed

# The build backend itself; what an earlier build left behind would come along.
dist: $(VENV)/.installed-dev
	rm -rf build dist
	$(VENV)/bin/python -c "from setuptools import build_meta; \
	  build_meta.build_sdist('dist'); build_meta.build_wheel('dist')" >/dev/null
	@ls dist/*

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

$(OLDEST_VENV)/.installed-oldest: pyproject.toml constraints-oldest.txt
	@echo "installing distdqn with its lowest dependencies into $(OLDEST_VENV)"
	@$(OLDEST_PYTHON) -m venv $(OLDEST_VENV)
	@$(OLDEST_PIP) -c constraints-oldest.txt -e . pytest pytest-timeout hypothesis
	@touch $@
