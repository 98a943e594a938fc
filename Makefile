# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORES := $(shell $(PYTHON) -c "import os; print(os.cpu_count())")

.PHONY: help install train test test-slow lint format bench bench-gpu clean

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

bench-gpu: $(STAMP) ## training steps on a GPU: eager, as CUDA graphs, bare and torchdeq's
	$(BIN)/python -m benchmarks.gpu

bench: $(STAMP) ## ratios against the bare function evaluations and against other packages
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks.solvers
	$(BIN)/python -m benchmarks.gradients
	$(BIN)/python -m benchmarks.digits
	$(BIN)/python -m benchmarks.mdeq_memory
	$(BIN)/python -m benchmarks.sequence
	$(BIN)/python -m benchmarks.sequence_jacobian
	$(BIN)/python -m benchmarks.kernel_attention
	$(BIN)/python -m benchmarks.mult
	$(BIN)/python -m benchmarks.nearest_neighbours
	$(BIN)/python -m benchmarks.coupling_transformer
	$(BIN)/python -m benchmarks.hyperparameter --seeds 2
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.privacy_speed

clean: ## remove caches and the environment; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
