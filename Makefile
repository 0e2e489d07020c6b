# make demo       the whole idea on clips made here, 12 minutes on two cores of ours
# make test       the tests
# make test-slow  more tests: every part of the programs, in several processes
# make check      lint, types and the tests of make test
# make clean      remove what these made, .venv included
#
# Each makes .venv first, with the versions of constraints.txt; PYTHON names another interpreter.

PYTHON ?= python3
BIN := .venv/bin

# One thread a process: two processes share the machine, and sums do not depend on the thread count.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow check clean

demo: .venv/.installed
	$(BIN)/mmembed demo --out demo

test: .venv/.installed
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/.installed
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'slow and not long'

check: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(MAKE) test

clean:
	rm -rf .venv demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; run make PYTHON=python3.12 or so" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools
	@# setuptools warns that folders named as the packages are imported first; these are the packages.
	PYTHONWARNINGS='ignore:Editable installation' \
		$(BIN)/pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	@touch $@
