# make help lists the targets. Each builds what it needs first, and does no work twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help python sweep test test-rest test-all check format golden study bench bench-gpu audit

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

sweep: $(VENV)/installed ## the first sweep: t_mult=1,2 on the embedded digits; a table, a page and pictures
	$(BIN)/python train.py -m scheduler=cosine_warm scheduler.t_mult=1,2
	@echo "For the commands of the README: . $(BIN)/activate"

PYTEST := $(BIN)/python -m pytest --no-loadscope-reorder --maxprocesses 4 --numprocesses

test: $(VENV)/installed-dev ## the tests to run before a commit: every module, in six minutes on two cores
	@echo "make test leaves out the tests marked slow: kills, clusters, several processes, W&B's servers, long runs."
	@echo "make test-rest runs those and no others, make test-all both."
	$(PYTEST) $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) -m "not slow" # some wait: for browsers, for other processes

test-rest: $(VENV)/installed-dev ## the tests that make test leaves out
	$(PYTEST) 3 -m slow # of which one at least waits: for Slurm, for servers

test-all: test test-rest ## all tests, each once

check: $(VENV)/installed-dev ## format, lint, strict types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: $(VENV)/installed-dev ## train small runs with REF=COMMIT and with this checkout, and compare them bit for bit
	$(BIN)/python scripts/golden.py compare $(REF)

study: $(VENV)/installed-dev data/FashionMNIST ## the study of docs/study.md, resumable; two hours on two cores
	$(BIN)/python scripts/study.py study=t_mult

data/FashionMNIST:
	scripts/fetch_fashion_mnist.sh

bench: $(VENV)/installed-dev ## what the harness costs, beside usual programs and Lightning; over an hour
	$(BIN)/python scripts/bench.py

bench-gpu: $(VENV)/installed-dev ## what the harness does and costs on a GPU; a table, in ten minutes
	scripts/gpu_check.sh

audit: $(VENV)/installed-dev ## look the versions of constraints.txt up among the known vulnerabilities
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# stops at a Python that is too old, before anything is installed, and at an environment that cannot be used
python:
	@if [ -e $(VENV) ] && ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "error: $(VENV) has no working Python with pip: rm -rf $(VENV), then the same command again" >&2; exit 1; fi
	@python=$(BIN)/python; fix="rm -rf $(VENV), then the same command with"; \
	  [ -e $(VENV) ] || { python=$(PYTHON); fix="the same command with"; }; \
	  $$python -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: %s is Python %d.%d, and 3.11 or later is needed: %s PYTHON=python3.11" % ((sys.argv[1],) + sys.version_info[:2] + (sys.argv[2],)))' $$python "$$fix"

$(VENV)/installed: pyproject.toml | python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
