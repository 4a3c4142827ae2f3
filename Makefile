PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# One version of each package for every Python and machine, with the hashes of all its files.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-header $(LOCK)

# How much of each kind, instead of the little that `make test` has time for.
TORTURE := MILLRACE_KILL_ROUNDS=20 MILLRACE_FRAMING_CASES=50000 MILLRACE_LANES_CASES=40000 \
	MILLRACE_KILL_POINTS=200 MILLRACE_FAULTS=50 MILLRACE_SLOW_CLIENTS=1 MILLRACE_OVERLOAD=1 \
	MILLRACE_MODEL_RUNS=2000 MILLRACE_USER_READS=100000 MILLRACE_DRAINS=20 MILLRACE_RETRY_KEYS=10000 \
	MILLRACE_ROTATIONS=3000 MILLRACE_FUZZ_BYTES=50000 MILLRACE_FUZZ_BODIES=100000 MILLRACE_FUZZ_REQUESTS=300 \
	MILLRACE_FEED_ROWS=5000 MILLRACE_FEED_DATA=1 MILLRACE_FEED_QUESTIONS=1000 \
	MILLRACE_POSTGRES_KILL_ROUNDS=10 MILLRACE_NODE_ROUNDS=1000 MILLRACE_SIMULATION_SEEDS=300 \
	MILLRACE_WORKERS_POSTS=20000 MILLRACE_WORKERS_KILLS=12 MILLRACE_MIRROR_HISTORIES=300 \
	MILLRACE_NODES_SECONDS=30 MILLRACE_NODES_KILL_ROUNDS=10 MILLRACE_CLIENT_POSTS=10000 MILLRACE_STREAMS=1 \
	MILLRACE_METRICS_POSTS=50000

LOCUST_HOST       ?= http://127.0.0.1:8000
LOCUST_USERS      ?= 50
LOCUST_SPAWN_RATE ?= 25
LOCUST_RUN_TIME   ?= 60s

.PHONY: run test torture lint format benchmark report load lock vendor env-example audit clean

## run: serve on http://127.0.0.1:8000 (settings come from the environment)
run: $(VENV)/installed
	exec $(BIN)/python -m app

## test: everything, in some five minutes
test: $(VENV)/installed
	$(BIN)/python -m pytest

## torture: the same, with far more of what is random or takes long (a seed is printed where it fails)
torture: $(VENV)/installed
	$(TORTURE) $(BIN)/python -m pytest
	MILLRACE_CONTRACT_WORKERS=2 $(BIN)/python -m pytest tests/contract

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

## lock: write the locks anew after a change of requirements.txt (LOCK=--upgrade for newer versions within it)
lock:
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(INSTALL) "$$(grep --only-matching '^uv==[0-9.]*' requirements.txt)"; }
	$(COMPILE) requirements.txt --output-file requirements.lock
	sed '/^# --- postgresql/,$$d' requirements.txt | $(COMPILE) - --constraints requirements.lock --output-file requirements-serve.lock
	grep '^psycopg' requirements.txt | $(COMPILE) - --constraints requirements.lock --output-file requirements-postgres.lock
	grep '^redis==' requirements.txt | $(COMPILE) - --constraints requirements.lock --output-file requirements-redis.lock
	grep '^locust==' requirements.txt | $(COMPILE) - --constraints requirements.lock --output-file requirements-load.lock

## vendor: fetch anew what the pages use of others, after a change of its PACKAGES (needs npm)
vendor:
	cd app/web/dashboard/vendor && scratch=$$(mktemp --directory) && \
	while read -r file package path; do \
		test -d $$scratch/$$package || { mkdir $$scratch/$$package && \
			tar --extract --gzip --directory $$scratch/$$package --strip-components 1 \
				--file $$scratch/$$(npm pack --silent --pack-destination $$scratch $$package) || exit 1; }; \
		cp $$scratch/$$package/$$path $$scratch/$$file || exit 1; \
	done < PACKAGES && (cd $$scratch && sha256sum $$(cut --delimiter ' ' --fields 1 $(CURDIR)/app/web/dashboard/vendor/PACKAGES)) > SHA256SUMS && \
	for file in $$(cut --delimiter ' ' --fields 1 PACKAGES); do \
		case $$file in \
			*.js | *.css) gzip --best --no-name --stdout $$scratch/$$file > $$file.gz ;; \
			*) cp $$scratch/$$file $$file && chmod 644 $$file ;; \
		esac || exit 1; \
	done; rm -r $$scratch

## env-example: write .env.example anew, after a change of app/settings.py
env-example: $(VENV)/installed
	$(BIN)/python -m app.env_example > .env.example

## audit: known vulnerabilities of what is locked
audit: $(VENV)/installed
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

## clean: forget the environment and every cache, but no data
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Installed once, and again only when the lock changes.
$(VENV)/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Millrace needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes --requirement requirements.lock
	touch $@
