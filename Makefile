PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

LOCUST_HOST       ?= http://127.0.0.1:8000
LOCUST_USERS      ?= 50
LOCUST_SPAWN_RATE ?= 25
LOCUST_RUN_TIME   ?= 60s

.PHONY: run test lint format benchmark report load clean

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

## benchmark: the service beside its peers, as ratios, in under ten minutes
benchmark: $(VENV)/installed
	$(BIN)/python -m loadtest.benchmark

## report: measure whether answers cost the same at any number of transactions, and draw a page of it
report: $(VENV)/installed
	$(BIN)/python -m loadtest.report

## load: locust's clients against a running service, for a minute (LOCUST_USERS=200 and so on to change it)
load: $(VENV)/installed
	$(BIN)/locust --headless --locustfile loadtest/locustfile.py --host $(LOCUST_HOST) \
		--users $(LOCUST_USERS) --spawn-rate $(LOCUST_SPAWN_RATE) --run-time $(LOCUST_RUN_TIME)

## clean: forget the environment and every cache, but no data
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Installed once, and again only when the requirements change.
$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Millrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@
