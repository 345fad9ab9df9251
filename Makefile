# make install ARCHIVE=legal@example.com    put it into this host's Postfix (as root)
# make uninstall                            take it out again
# make demo    see it work: a private Postfix, some mail, the archive copies
# make test    everything that can be tested here, on a live Postfix
# make storm   2,000 messages while processes are killed at random, then 5,000 while the
#              follower of the log is killed at random and the log rotated (minutes)
# make load    20,000 mixed messages, then 100,000 small ones (an hour or two)
# make reconcile  5,000 messages, 37 around the archive; a log of 1,000,000 lines
# make bench   messages/s, CPU, fsyncs, latency beside Postfix without an archive (15
#              minutes; one with ROUNDS=1 SIZES=4 RECIPIENTS=1; OUT=docs keeps the page)
# make growth  the same rate with 1,000,000 messages in the store? the memory of a worker
#              after 50,000, of all with 200 MB (STORE=folder keeps the store, 6 GB)
# make check   format, lint, types, house rules, unit tests
# make format  bring the code into form
#
# demo, test and check install what they need and say so first.

PYTHON ?= /usr/bin/python3
VENV = .venv
BIN = $(VENV)/bin

# For install, by the environment: in a shell line their characters could mean more.
# Defaults are the installer's. DESTDIR=, for packages, lays down the program alone.
ifneq ($(filter install uninstall,$(MAKECMDGOALS)),)
export ARCHIVE ARCHIVE_POSITION CONFIG_DIRECTORY DESTDIR DRY_RUN INSTALL_POSTFIX
export MODE ON_REQUEST PORT PREFIX PYTHON STORE WHEELS
endif
INSTALLER = "$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  2>/dev/null || { printf '%s: PYTHON=%s: that is no Python 3.11 or later: give the\
 path of one\n' $@ "$$PYTHON" >&2; exit 1; }; \
  PYTHONPATH=. "$$PYTHON" -B -m postfix_archive.front.install

# Test files side by side, where live tests run on this host and not in a container:
# they wait for Postfix most of the time.
ifeq ($(shell id -u)-$(POSTFIX_ARCHIVE_TESTS),0-)
SIDE_BY_SIDE = -n 3 --dist loadfile
endif

.PHONY: help install uninstall demo test unit live container storm load reconcile bench growth check format clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,15p'

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
	@$(BIN)/pytest -m "not live and not slow"

live:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest $(SIDE_BY_SIDE) -m "live and not slow"

# The live tests as a user gets them who is not root but may use Docker. Where no engine
# runs, as root: tests/container/engine start, and stop when done.
container:
	@PYTHON=$(PYTHON) POSTFIX_ARCHIVE_TESTS=container tests/prepare test
	@$(BIN)/pytest tests/test_container_path.py
	@POSTFIX_ARCHIVE_TESTS=container $(BIN)/pytest -m "live and not slow"

storm:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest -s -m slow tests/live/test_storm.py tests/live/test_outcomes_faults.py

load:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest -s -m slow tests/live/test_load.py

reconcile:
	@PYTHON=$(PYTHON) tests/prepare test
	@$(BIN)/pytest -s -m slow tests/live/test_reconcile.py

# ROUNDS, MESSAGES, SIZES, RECIPIENTS, SESSIONS, VARIANTS, LATENCIES, TRACED, ALONE, OUT:
# see bench/bench.py --help.
bench:
	@PYTHON=$(PYTHON) tests/prepare test
	@PYTHONPATH=tests:bench $(BIN)/python bench/bench.py

# ROUNDS, MESSAGES, STORED, SERVED, LARGE, STORE, OUT: see bench/growth.py --help.
growth:
	@PYTHON=$(PYTHON) tests/prepare test
	@PYTHONPATH=tests:bench $(BIN)/python bench/growth.py

check:
	@PYTHON=$(PYTHON) tests/prepare check
	@$(BIN)/black --check --quiet postfix_archive tests bench || \
	  { echo "black would change files: run make format"; exit 1; }
	@$(BIN)/isort --check-only postfix_archive tests bench
	@$(BIN)/flake8 postfix_archive tests bench
	@$(BIN)/mypy
	@$(BIN)/pytest -q -m "not live and not slow"

format:
	@PYTHON=$(PYTHON) tests/prepare check
	@$(BIN)/isort --quiet postfix_archive tests bench
	@$(BIN)/black --quiet postfix_archive tests bench

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
