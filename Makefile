# Every target makes its own set-up in .venv; `make help` lists them.

VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

# A Python to build .venv with: the first of these that is 3.11 or newer and has venv.
PYTHON ?= python3.11 python3.12 python3.13 python3 python
# Another package index, such as https://download.pytorch.org/whl/cpu for torch without CUDA.
TORCH_INDEX ?=
# What `make bench` runs, and how much of it; `uci` needs data: NAME=uci ARGS='--data folder'.
NAME ?= $(filter-out uci,$(patsubst benchmarks/%.py,%,$(shell grep -l __main__ benchmarks/*.py)))
BUDGET ?= small
# Benchmarks beside other people's packages, which lie in a folder that nothing else looks into.
WITH_RIVALS := training rollout
RIVALS := $(VENV)/rivals
# It asks for other versions than ours, and is on no path but its own process's.
MLSERVER := $(VENV)/mlserver
# Only from the command line: ENV means something else in many people's shells.
DEMO_ENV := $(if $(findstring command line,$(origin ENV)),$(ENV))

.PHONY: help setup demo test check bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo             collect, train, serve and plan on ObjectSlide, under 3 minutes"
	@echo "make demo ENV=fetch   the same for FetchPickAndPlace, with open-loop errors"
	@echo "make test             the tests; ARGS='-k name' is passed on to pytest"
	@echo "make check            ruff, mypy and import-linter"
	@echo "make bench            the benchmarks; NAME=one BUDGET=small, or full or paper, as it"
	@echo "                      has; ARGS='--data folder' is passed on to it"
	@echo "make setup            only the set-up that each of these begins with"
	@echo "make clean            remove .venv and all caches"
	@echo
	@echo "PYTHON=python3.12 sets up with that Python. Where there is no GPU,"
	@echo "TORCH_INDEX=https://download.pytorch.org/whl/cpu avoids gigabytes of CUDA libraries."

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@for python in $(PYTHON); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then exec "$$python" -m venv $(VENV); fi; \
	done; \
	echo "expected Python 3.11 or newer with venv among '$(PYTHON)', found none;" \
	  "install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 2
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/dynlearn demo $(if $(DEMO_ENV),--env $(DEMO_ENV))

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(STAMP) $(if $(filter $(WITH_RIVALS),$(NAME)),$(RIVALS)/.installed) \
  $(if $(filter serving,$(NAME)),$(MLSERVER)/.installed)
	@set -e; for name in $(NAME); do \
	  case $$name in serving) own='--mlserver $(MLSERVER)';; *) own=;; esac; \
	  PYTHONPATH=$(RIVALS) $(BIN)/python -m benchmarks.$$name --budget $(BUDGET) $$own $(ARGS); \
	done

$(RIVALS)/.installed: benchmarks/rivals/requirements.txt $(STAMP)
	rm -rf $(RIVALS)
	$(BIN)/python -m pip install --no-deps --target $(RIVALS) -r $<
	@touch $@

$(MLSERVER)/.installed: benchmarks/rivals/mlserver-requirements.txt $(STAMP)
	rm -rf $(MLSERVER)
	$(BIN)/python -m pip install --no-deps --target $(MLSERVER) -r $<
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
