# make demo and make test do all the set-up; nothing has to be installed first but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.stamp ## .venv with endwise in it; reused when up to date

$(VENV)/.stamp: pyproject.toml constraints/ci.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "endwise needs Python 3.11 or newer; say which with make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing endwise and what it needs into $(VENV) (minutes the first time: torch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/ci.txt -e '.[$(EXTRAS)]' 2>&1 | grep -vE 'WARNING: Location' || true
	@$(BIN)/python -c 'import endwise, torch, pydantic'
	@touch $@

demo: setup ## train from raw waveform to written words on real recordings, evaluate, write a report (<= 3 minutes)
	@$(BIN)/endwise train recipes/spoken-digits/recipe.yaml --out runs/demo-$$(date +%Y%m%d-%H%M%S) $(ARGS)

test: setup ## the test suite, a file at a time on each core
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow' -n logical --dist loadfile $(ARGS)

test-slow: setup ## the tests that take minutes: the full export matrix, torch.compile, a venv without torch
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow $(ARGS)

coverage: setup ## the test suite with coverage
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow' --cov --cov-report=term-missing:skip-covered

check: setup ## linters and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

device-wheels: setup ## the small wheels that a bare torch machine with Python 3.12 lacks, into .wheels/ (<= 40 MB)
	@rm -rf .wheels && mkdir .wheels
	@$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
	  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform manylinux_2_24_x86_64 \
	  -d .wheels -r constraints/device.txt 2>&1 | grep -vE 'WARNING: Location' || true
	@du -sh .wheels && ls .wheels

clean: ## what tests and builds leave behind (not runs, not .venv)
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov

.PHONY: help setup demo test test-slow coverage check device-wheels clean
