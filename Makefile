# Everything below sets itself up: nothing to install but Python (3.11 or newer) and make. Go is used where it is present.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-unit test-faults check generate pipelines verify cluster cluster-down benchmarks constraints setup tools clean

PY := .venv/bin/python
# Two workers for two cores; tests that start vLLM share one of them (tests/conftest.py), so never two servers beside each other,
# and tests on a cluster share one too (tests/cluster/conftest.py), so there is one cluster.
WORKERS ?= 2
TASK ?= medcalc
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadgroup

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: setup ## Train, evaluate and report here, without data, GPU or cluster; TASK=medcalc (or trec, ehrshot), minutes on 2 cores
	$(PY) -m ehrmind_k8s submit -f examples/quickstart-$(TASK).yaml --backend local

test: setup tools ## All tests; says what it skips and why
	$(PYTEST) --durations 15 $(ARGS)

test-unit: setup ## The fast tests only
	$(PYTEST) tests/unit tests/architecture $(ARGS)

test-faults: setup tools ## Every fault on a cluster, one after the other; writes their table into docs/operations.md (about an hour on 2 cores)
	EHRMIND_FAULTS=1 EHRMIND_FAULTS_TABLE=docs/operations.md $(PY) -m pytest tests/unit/controller/test_properties.py tests/unit/tasks/ehrshot/test_no_future.py tests/cluster/test_faults.py tests/cluster/test_lifecycle.py $(ARGS)

check: setup verify ## Style, types, import contracts, generated files
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache

generate: setup ## Write the files that are made from the code (docs/run-document.md, docs/commands.md)
	$(PY) docs/generate.py

pipelines: setup ## Compile pipelines/*.yaml and the READMEs of components/; EHRMIND_IMAGE names the image in your registry
	@scripts/kfp.sh -m pipelines

verify: setup ## Fail if a generated file does not match the code
	$(PY) docs/generate.py --check

cluster: setup tools ## Bring up the tests' Kubernetes cluster to play with, and print how to use it (root on Linux)
	@$(PY) -m tests.cluster.harness up $(ARGS)

cluster-down: setup ## Take it away
	@$(PY) -m tests.cluster.harness down

benchmarks: setup tools ## Measure what docs/performance.md states
	@for file in benchmarks/*.py; do echo "== $$file"; $(PY) -m "benchmarks.$$(basename $$file .py)"; done

constraints: setup ## Resolve all dependencies anew into constraints.txt
	.venv/bin/uv pip compile pyproject.toml --extra train --extra rollout-cpu --extra dev --override overrides-cpu.txt --universal --upgrade \
	  --python-version 3.11 --no-annotate --no-header --no-emit-index-url --quiet | grep -v "sys_platform == 'never'" > constraints.new
	{ echo "# Every version that was tested together. Made by \`make constraints\`; do not edit."; cat constraints.new; } > constraints.txt
	rm constraints.new

setup: ## Make or refresh .venv (every other target does it too)
	@scripts/setup.sh

# What cannot be built is said here, and by the tests that miss it.
tools: setup
	@if command -v go > /dev/null; then $(PY) -m tests.tools.build > /dev/null || true; \
	  else echo "Go is not there: tests on a real S3 server or cluster will be skipped"; fi
	@scripts/kfp.sh --version > /dev/null || echo "kfp cannot be installed: tests of pipelines will be skipped"

clean: ## Remove the setup and caches; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
