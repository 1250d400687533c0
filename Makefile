# Two commands need nothing but Python 3.11+, git and make:
#   make grow   the main job: a language model grows on your machine (SCALE=tiny)
#   make test   the fast test suite
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PYTHON ?= python3
RUN := $(UV) run --no-sync
MEMBERS := $(patsubst %/pyproject.toml,%,$(wildcard packages/*/pyproject.toml apps/*/pyproject.toml))
member = $(or $(wildcard packages/$(P)),$(wildcard apps/$(P)),$(error P=$(P) is no member; choose one of $(notdir $(MEMBERS))))

.PHONY: help grow test setup lint docs isolated floors wheels release-check bench
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

grow: setup ## grow a language model and watch it learn (SCALE=micro|tiny|small|paper)
	@$(RUN) meristem grow --scale $(or $(SCALE),tiny)

test: setup ## the fast test suite
	@OMP_NUM_THREADS=1 $(RUN) pytest -q -n auto --dist worksteal && echo "verdict: all tests pass" || { echo "verdict: tests fail" >&2; exit 1; }

setup: $(filter .uv/bin/uv,$(UV)) ## uv if it is absent, and the environment of the lock
	@$(UV) sync --locked --quiet --compile-bytecode

.uv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9.25'

lint: setup ## lock, style, types, layers, dependencies
	$(UV) lock --check
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) pyright
	$(RUN) lint-imports
	@for member in $(MEMBERS); do echo "deptry $$member"; $(RUN) deptry $$member/src --config $$member/pyproject.toml || exit 1; done

docs: setup ## the documentation, into site/
	$(RUN) zensical build --strict

isolated: setup ## one member alone: P=core
	$(UV) run --isolated --exact --package $(notdir $(member:packages/%=meristem-%)) --group test pytest -q $(member)

floors: setup ## one member with the oldest dependencies it declares: P=core
	.ci/floors $(P)

wheels: setup ## every wheel and sdist, built twice and compared, into dist/
	.ci/wheels

release-check: setup ## what a release must pass, offline: P=core
	$(RUN) python .github/scripts/check_release.py $(P)

bench: setup ## a member's benchmarks: P=meristem
	@for script in $(member)/benchmarks/*.py; do $(RUN) --group bench python $$script || exit 1; done
