PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# two test processes, one thread each: with two each they wait for one another on two cores
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: setup demo test suite quick lint bench checks docs

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $@

demo: setup
	$(BIN)/alpamayo-r1 run --checkpoint small --data sample --samples 6 --out out/demo

lint: setup
	$(BIN)/ruff check src tests bench checks
	$(BIN)/ruff format --check src tests bench checks
	$(BIN)/basedpyright

# the type checker takes one core for 20 s: beside the tests that is 10 s of both
test: setup
	$(MAKE) -j 2 lint suite

suite: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal --durations=15

quick: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

checks: setup
	PYTHON=$(BIN)/python sh checks/all.sh

bench: setup
	PYTHON=$(BIN)/python sh bench/all.sh

docs: setup
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q --strict
	@echo "open out/site/index.html"
