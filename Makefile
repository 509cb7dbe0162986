# One command each; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
CASA   := .venv-casa
BIN    := $(VENV)/bin
export MPLBACKEND := Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without bytecode every process of the tests would read the sources again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test units containers docs pictures packages faults casa batch lint format lock clean
.DELETE_ON_ERROR:

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.ready ## simulate a transit, self-calibrate it from random phases, write demo-output/
	$(BIN)/contimg demo demo-output

# Tests that start container engines never run at the same time.
ALONE := mkdir -p build && flock build/engines.lock

test: units ## lint, type-check and run the tests, one process for each core
	@$(MAKE) --no-print-directory containers

units: $(VENV)/.ready-test lint packages # all tests but those that start container engines
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadscope --ignore tests/imaging/wsclean

containers: $(VENV)/.ready-test packages # the tests that start container engines
	$(ALONE) $(BIN)/python -m pytest tests/imaging/wsclean

docs: $(VENV)/.installed-docs ## build the documents as a site in build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

pictures: demo $(VENV)/.ready-test ## draw the pictures of the documents anew, from the demonstration
	$(BIN)/python -m scripts.site.pictures demo-output

packages: # what the tests need of Debian
	scripts/test_packages.sh

faults: $(VENV)/.ready-test packages ## break Docker and podman in every way that was seen, and the disk below (root, 7 minutes)
	$(ALONE) $(BIN)/python -m pytest tests/faults -m faults -q

casa: $(VENV)/.ready-test $(CASA)/.ready packages ## compare with CASA (2 GB in .venv-casa)
	CONTIMG_CASA_PYTHON="$${CONTIMG_CASA_PYTHON:-$(CURDIR)/$(CASA)/bin/python}" $(BIN)/python -m pytest tests/casa -m casa -q

batch: $(VENV)/.ready-test ## 200 small observations, ten of them bad, through every kind of death (10 minutes, in build/batch)
	rm -rf build/batch
	$(BIN)/python -m studies.pipeline_batch build/batch

lint: $(VENV)/.installed-test ## ruff and mypy, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test ## rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The venv of pip-tools is kept apart, so that what it needs never enters a lock.
COMPILE = build/lock/bin/pip-compile --quiet --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-options
lock: ## pin the newest versions that fit pyproject.toml and tests/casa/requirements.in
	$(call make-venv,build/lock)
	build/lock/bin/python -m pip install --quiet pip-tools
	$(COMPILE) --upgrade --output-file requirements.lock pyproject.toml
	$(COMPILE) --upgrade --allow-unsafe --extra test --constraint requirements.lock --output-file requirements-test.lock pyproject.toml
	$(COMPILE) --upgrade --extra docs --constraint requirements-test.lock --output-file requirements-docs.lock pyproject.toml
	$(COMPILE) --upgrade --output-file tests/casa/requirements.lock tests/casa/requirements.in

clean: ## remove environments, caches and the demo's output
	rm -rf $(VENV) $(CASA) build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A venv that was left half made has no working pip; it is made anew.
define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, '$(PYTHON)' is not; use: make PYTHON=python3.12" >&2; exit 2; }
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf $(1); $(PYTHON) -m venv $(1); } || \
	  { rm -rf $(1); echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 2; }
endef

# The stamps are touched last: an interrupted set-up is taken up again by the next call. With `make -j` the
# kernels, which numba compiles on one core, are compiled while pip installs the rest, one pip at a time.
INSTALL = flock $(VENV) $(BIN)/python -m pip install --quiet
$(VENV)/.installed: requirements.lock pyproject.toml
	$(call make-venv,$(VENV))
	$(INSTALL) --requirement requirements.lock
	$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.ready: $(VENV)/.installed
	$(BIN)/contimg compile
	@touch $@

$(VENV)/.installed-test: requirements-test.lock $(VENV)/.installed
	$(INSTALL) --requirement requirements-test.lock
	@touch $@

$(VENV)/.ready-test: $(VENV)/.installed-test $(VENV)/.ready
	@touch $@

$(VENV)/.installed-docs: requirements-docs.lock $(VENV)/.installed
	$(INSTALL) --only-binary :all: --requirement requirements-docs.lock
	@touch $@

$(CASA)/.ready: tests/casa/requirements.lock
	$(call make-venv,$(CASA))
	$(CASA)/bin/python -m pip install --quiet --requirement tests/casa/requirements.lock
	@touch $@
