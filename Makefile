# make demo: the whole method on the corpus in the package.  make test: the tests.  make check: format, lint, types, imports.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test crash check format schema clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("quadmix needs Python 3.11 or newer; try: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

# what reads our exports, without dependencies and beside the environment: they do not all fit into one
$(VENV)/.readers: $(VENV)/.installed tests/readers.txt
	rm -rf $(VENV)/readers
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt --target $(VENV)/readers --requirement tests/readers.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/quadmix demo

test: $(VENV)/.readers
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

crash: $(VENV)/.installed
	$(BIN)/python -m pytest tests/crash

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(VENV)/.installed
	$(BIN)/quadmix schema > docs/recipe.schema.json

clean:
	rm -rf $(VENV)
