# make install ARCHIVE=legal@example.com    install into this host's Postfix (as root)
# make uninstall     remove it and restore the configuration
# make demo          a private Postfix archives some mail and prints the archive copies
# make test          all unit tests, and live tests against a real Postfix
# make unit          the unit tests alone
# make live          the live tests alone
# make container     the live tests in a Docker container
# make check         make lint and make unit
# make lint          formatters, flake8, types, import contracts
# make format        format the code
# make storm         2,000 messages while processes are killed at random, then 5,000
#                    while the log follower is killed and the log is rotated (minutes)
# make load          20,000 mixed messages, then 100,000 small ones (one to two hours)
# make outage        native mode, the archive stopped, hanging or killed, ten minutes
#                    each: the latency of live mail (two hours; OUTAGE=seconds)
# make reconcile     5,000 messages, 37 of them not archived; a log of 1,000,000 lines
# make object-storage  kill replicate at each of its steps, with a real radosgw
# make bench         messages/s, CPU, fsyncs and latency, with and without the archive
#                    (25 minutes; 2 with ROUNDS=1 SIZES=4 RECIPIENTS=1; OUT=docs writes
#                    the page)
# make growth        throughput with 1,000,000 messages in the store; memory of a worker
#                    after 50,000 messages and with 200 MB ones (STORE=DIR keeps the
#                    store, 6 GB)
# make bench-search  search, index and export beside notmuch (hours and 60 GB with its
#                    1,000,000 messages; MESSAGES=30000 takes 15 minutes; STORE=DIR
#                    keeps what was made)
# make bench-web     the web page with 10 users at once (20 minutes after the store of
#                    bench-search is there; STORE=DIR uses that)
# make tampering     write the table of docs/security.md: what somebody may do to a store,
#                    and what finds it
# make requirements  write the exact versions of the Python packages that make install
#                    installs (VERSIONS=--upgrade: the newest that setup.cfg allows)
# make translations  bring the German texts of the web page up to date, name those missing
# make demo-web      the web page over a sample archive, on 127.0.0.1, until Ctrl-C
# make clean         remove what the commands above have left in this directory
#
# Options of make install: docs/installing.md. All other commands install what they need
# and print it first.

PYTHON ?= /usr/bin/python3
VENV = .venv
BIN = $(VENV)/bin

# Options of install and uninstall are passed in the environment, not on a command line:
# the shell would interpret their characters. The installer has the defaults. DESTDIR=,
# for packages, installs the program files alone.
ifneq ($(filter install uninstall,$(MAKECMDGOALS)),)
export ARCHIVE ARCHIVE_POSITION CONFIG_DIRECTORY DESTDIR DRY_RUN INSTALL_POSTFIX
export MODE ON_REQUEST PORT PREFIX PYTHON STORE WHEELS WITH
# Names of variables on make's command line: the installer refuses what it does not know.
MAKE_WORDS := $(foreach name,$(.VARIABLES),\
  $(if $(filter command,$(origin $(name))),$(name)))
INSTALLER_ENVIRONMENT = MAKE_WORDS="$(strip $(MAKE_WORDS))" PYTHONPATH=.
endif
INSTALLER = "$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  2>/dev/null || { printf '%s: PYTHON=%s: not Python 3.11 or later; give the path of\
 one\n' $@ "$$PYTHON" >&2; exit 1; }; \
  $(INSTALLER_ENVIRONMENT) "$$PYTHON" -B -m postfix_archive.install.main

# Run tests in parallel if live tests run on this host and not in a container: they wait
# for Postfix most of the time. tests/schedule.py has their order.
ifeq ($(shell id -u)-$(POSTFIX_ARCHIVE_TESTS),0-)
SIDE_BY_SIDE = -n $(PROCESSES) --durations=40
PROCESSES = $(shell n=$$(($$(nproc) * 3)); [ $$n -lt 16 ] || n=16; echo $$n)
endif

.PHONY: help install uninstall demo test unit live container storm load outage reconcile
.PHONY: bench object-storage translations demo-web
.PHONY: bench-search bench-web growth check lint format tampering requirements clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

install:
	@$(INSTALLER) install

uninstall:
	@$(INSTALLER) uninstall

demo:
	@PYTHON=$(PYTHON) tests/prepare demo
	@$(BIN)/python tests/demo.py

test:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow"

unit:
	@PYTHON=$(PYTHON) tests/prepare check
	@$(BIN)/pytest -q -m "not live and not slow"

live:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest $(SIDE_BY_SIDE) -m "live and not slow"

# The live tests for a user without root who may use Docker. To run them without a Docker
# engine, as root: tests/container/engine start, and stop afterwards.
container:
	@PYTHON=$(PYTHON) POSTFIX_ARCHIVE_TESTS=container tests/prepare test
	@$(BIN)/pytest tests/test_container_path.py
	@POSTFIX_ARCHIVE_TESTS=container $(BIN)/pytest -m "live and not slow"

storm:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest -s -m slow tests/live/test_storm.py tests/live/outcomes/test_outcomes_faults.py

load:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest -s -m slow tests/live/test_load.py

outage:
	@PYTHON=$(PYTHON) tests/prepare test
	@OUTAGE=$(OUTAGE) $(BIN)/pytest -s -m slow tests/live/test_outage.py

reconcile:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest -s -m slow tests/live/reconcile/test_reconcile.py

object-storage:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest -s -m slow tests/live/replicate

# ROUNDS, MESSAGES, SIZES, RECIPIENTS, SESSIONS, VARIANTS, LATENCIES, TRACED, ALONE, OUT:
# see bench/bench.py --help.
bench:
	@PYTHON=$(PYTHON) tests/prepare test
	@PYTHONPATH=tests:bench $(BIN)/python bench/bench.py

# ROUNDS, MESSAGES, STORED, SERVED, LARGE, STORE, OUT: see bench/growth.py --help.
growth:
	@PYTHON=$(PYTHON) tests/prepare test
	@PYTHONPATH=tests:bench $(BIN)/python bench/growth.py

# MESSAGES, LAG_MESSAGES, STORE, OUT: see bench/search_bench.py --help.
bench-search:
	@PYTHON=$(PYTHON) tests/prepare test
	@PYTHONPATH=tests:bench $(BIN)/python bench/search_bench.py

# MESSAGES, USERS, REQUESTS, PAUSE, STORE, OUT: see bench/web_bench.py --help.
bench-web:
	@PYTHON=$(PYTHON) tests/prepare test
	@PYTHONPATH=tests:bench $(BIN)/python bench/web_bench.py

check: lint unit

lint:
	@PYTHON=$(PYTHON) tests/prepare check
	@$(BIN)/black --check --quiet postfix_archive tests bench || \
	  { echo "black would change files: run make format"; exit 1; }
	@$(BIN)/isort --check-only postfix_archive tests bench
	@$(BIN)/flake8 postfix_archive tests bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format:
	@PYTHON=$(PYTHON) tests/prepare check
	@$(BIN)/isort --quiet postfix_archive tests bench
	@$(BIN)/black --quiet postfix_archive tests bench

tampering:
	@PYTHON=$(PYTHON) tests/prepare test
	@PYTHONPATH=tests:. $(BIN)/python tests/tampering.py

# With hashes, so that pip as root installs nothing else. Python 3.11 is the oldest that
# is supported: what a newer one does not need would be missing there. Each of PARTS, an
# extra of setup.cfg, has a file of its own, with versions that agree with those before.
PARTS = object-store seal web
REQUIREMENTS = postfix_archive/install/requirements
requirements:
	@PYTHON=$(PYTHON) tests/prepare release
	@set -e; compile() { CUSTOM_COMPILE_COMMAND='make requirements' $(BIN)/pip-compile \
	    --quiet $(VERSIONS) --generate-hashes --strip-extras --no-emit-index-url \
	    --no-emit-find-links "$$@" setup.cfg; }; \
	  compile --extra search --extra procedure --extra speed --output-file $(REQUIREMENTS).txt; \
	  before="--constraint $(REQUIREMENTS).txt"; \
	  for part in $(PARTS); do \
	    compile --extra $$part $$before --output-file $(REQUIREMENTS)-$$part.txt; \
	    before="$$before --constraint $(REQUIREMENTS)-$$part.txt"; \
	  done

translations:
	@PYTHON=$(PYTHON) tests/prepare check
	@PYTHONPATH=tests $(BIN)/python tests/web_texts.py

demo-web:
	@PYTHON=$(PYTHON) tests/prepare check
	@PYTHONPATH=tests $(BIN)/python tests/web_demo.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
