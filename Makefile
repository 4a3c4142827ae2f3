PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run test lint format clean

## run: serve on http://127.0.0.1:8000 (settings come from the environment)
run: $(VENV)/installed
	exec $(BIN)/python -m app

## test: everything, in under three minutes
test: $(VENV)/installed
	$(BIN)/python -m pytest

## lint: formatting, style and types
lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

## format: put every file into the one format
format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## clean: forget the environment and every cache, but no data
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Installed once, and again only when the requirements change.
$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Millrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@
