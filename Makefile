# Everything that can be run. `make help` lists it.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint e2e e2e-package mutation bench deb lock clean

help: ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 14

venv: $(STAMP) ## .venv with the hash-pinned dependencies and the project

$(STAMP): packaging/requirements-dev.lock setup.cfg pyproject.toml
	@e2e/lab/setup venv
	@$(PYTHON) -c 'import sys; sys.exit("make: Python 3.10 or later is needed, $(PYTHON) is " \
		+ sys.version.split()[0] + "; name another: make PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	@echo "==> making .venv (once)"
	@test -x $(BIN)/pip || { rm -rf .venv; $(PYTHON) -m venv .venv; }
	@$(BIN)/pip install --quiet --require-hashes --no-deps -r packaging/requirements-dev.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## the life of a connection, narrated; KEEP=1 ends in a shell with everything running
	@$(BIN)/python -m e2e.demo

test: venv ## unit, golden and property tests: no root, no network
	@$(BIN)/python -m pytest -n auto --dist loadfile

lint: venv ## ruff, mypy --strict, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

NETNS := $(wildcard e2e/test_netns_*.py) e2e/test_bgp.py e2e/test_watch.py
e2e: venv ## the whole system on a real kernel; TESTS="-k disable" selects
	@e2e/lab/setup net bgp firewalls
	@$(BIN)/python -m pytest -p no:cacheprovider $(NETNS) $(TESTS) || test $$? = 5 # 5: TESTS selects none of these
	@$(BIN)/python -m e2e.lab run --else-run -- python -m pytest -p no:cacheprovider e2e \
		$(addprefix --ignore=,$(NETNS)) --ignore=e2e/package $(TESTS)
	@$(MAKE) --no-print-directory e2e-package

# TESTS may select none of a part (pytest's status 5). The story gives the machine longer: it is a whole host in there.
STORY := e2e/package/test_story.py
e2e-package: venv ## only the package: in trees, booted, as a story; PACKAGE=quick leaves out, SUITES=bookworm too
	@e2e/lab/setup deb package $(if $(filter quick,$(PACKAGE)),,piuparts)
	@packaging/deb $$(dpkg --print-architecture)
	@$(BIN)/python -m pytest -p no:cacheprovider e2e/package --ignore=$(STORY) $(TESTS) || test $$? = 5
ifeq ($(PACKAGE),quick)
	@echo "==> LEFT OUT of this quick run: $(STORY) (the package on a host with tunnels), and all but one distribution"
else
	@$(BIN)/python -m e2e.lab run --else-run --limit 7200 -- python -m pytest -p no:cacheprovider $(STORY) $(TESTS) \
		|| test $$? = 5
endif

mutation: venv ## which wrong decisions no test notices (long); FILES=dzagent/guard.py selects
	@nice $(BIN)/python -m tests.mutation $(FILES)

bench: venv ## tables of costs, with ratios; never part of a verdict; BENCH=passes selects one
	@set -e; for file in benchmarks/$(or $(BENCH),[a-z]*).py; do \
		echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename "$$file" .py); done

deb: ## Debian packages for amd64 and arm64 in dist/; ARCH=amd64 builds one, VERSION=0.2.0 another version
	@e2e/lab/setup deb
	@packaging/deb $(if $(VERSION),--version $(VERSION)) $(ARCH)

lock: ## regenerate the locked requirements (needs uv)
	packaging/lock

clean: ## remove .venv, caches, and the lab's kernel
	rm -rf .venv .lab .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
