# Each target sets up everything it needs in .venv: nothing but Python 3.11 or newer, git and make has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast lint format clean

# Files of tests at a time, in the order of tests/conftest.py: those that take longest first. Each is on one core, and of
# all the tests some wait now and then, so that three keep two cores busy; to begin takes longer than two.
# What is compiled is kept for the processes that tests start, whatever the environment says.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder

demo: $(READY)
	$(BIN)/ssan demo --out demo-out

test: JOBS := 3
test: $(READY)
	$(PYTEST)

# What is worth running after each change; the rest belongs to test.
test-fast: $(READY)
	$(PYTEST) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo-out
