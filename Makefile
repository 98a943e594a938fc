# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORES := $(shell $(PYTHON) -c "import os; print(os.cpu_count())")

.PHONY: help install train test test-slow lint format docs coverage mutants bench bench-gpu clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(STAMP) ## make .venv with everything that training, tests and lint need

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch torchvision
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

train: $(STAMP) ## train the default (MDEQ on the bundled digits) and print the result; ARGS="task=..."
	$(BIN)/python train.py $(ARGS)

test: $(STAMP) ## the default test suite, a process on each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(CORES) --dist loadfile $(ARGS)

test-slow: $(STAMP) ## the evidence that takes minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP) ## ruff, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(STAMP) ## the default tests with coverage; fails below 95 % (equilibrium, privacy) or 85 %
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(CORES) --dist loadfile --cov --cov-report= $(ARGS)
	$(BIN)/python -m tests.coverage_of_rooms

mutants: $(STAMP) ## mutation testing of solvers and estimators; ARGS="--each 20 anderson"
	OMP_NUM_THREADS=1 nice $(BIN)/python -m tests.mutants $(ARGS)

docs: $(STAMP) ## build the documentation into site/; a warning is an error
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench-gpu: $(STAMP) ## training steps on a GPU: eager, compiled, as CUDA graphs, bare and torchdeq's; CIFAR-10
	$(BIN)/python -m benchmarks.gpu --output runs/bench_gpu $(ARGS)

bench: $(STAMP) ## all tables of docs/performance.md, under 30 minutes (ARGS="--cifar FOLDER --only steps")
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove caches and the environment; runs/ stays
	rm -rf $(VENV) build dist site mutants .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
