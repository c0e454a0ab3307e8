# Everything a checkout needs, in an environment of its own: `make` lists the targets.
#
# Law: each target works in a fresh clone with nothing but Python, make and, for the C core, a C compiler. What it needs
# is installed into .venv once, and again only when the files that say so have changed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO_SECONDS ?= 20
# Most tests wait for a server most of the time. tests/support/work_units.py says which stay together.
WORKERS ?= 4

# Errors only: a registry's warnings are of no use to the reader.
QUIETLY := --quiet --quiet

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

C_FILES    := $(wildcard src_c/*.c)
C_TESTS    := $(wildcard tests/c/test_*.c tests/c/fuzz_*.c)
EXT_FILES  := $(wildcard src_c/*.[ch] pgrepl/codec/_native/*.pyx pgrepl/codec/_native/*.pxd pgrepl/codec/_native/*.pxi)
C_STRICT   := -std=c11 -O1 -g -Wall -Wextra -Wconversion -Werror -Isrc_c
C_SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
C_BUILD    := build/c-test

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The steps share one environment, which two runs of pip would spoil.
.NOTPARALLEL:
.PHONY: help demo test unit lint typecheck format c-test rules bench build servers clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\n  PYTHON=python3.12 make test    another Python (3.11 or newer), for an environment that is not there yet\n'

# pip waits for a registry for a while, and the compiler need not.
demo: $(VENV)/.tools ## stream from a throw-away PostgreSQL server for 20 seconds
	@$(MAKE) --silent --no-print-directory $(VENV)/.native & native=$$!; \
	 $(MAKE) --silent --no-print-directory $(VENV)/.demo || { wait $$native; exit 1; }; \
	 wait $$native || echo '==> The C core cannot be built here (see above): the demo runs on the pure-Python twin'
	@$(BIN)/pgrepl demo --seconds $(DEMO_SECONDS)

test: lint c-test servers ## everything: lint, the C core's own tests, then pytest on real servers
	@echo '==> pytest'
	@PGREPL_REQUIRE_EXT=1 $(BIN)/python -m pytest -n $(WORKERS)

unit: $(VENV)/.dev $(VENV)/.native ## the tests that need no server, in two minutes or so; no lint
	@PGREPL_REQUIRE_EXT=1 $(BIN)/python -m pytest --quiet -n $(WORKERS) tests/unit tests/parity tests/model

lint: $(VENV)/.dev $(VENV)/.native ## style, types, who may import whom
	@echo '==> lint: ruff, mypy, import-linter, cython-lint'
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports --no-logo) || { printf '%s\n' "$$report" >&2; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint pgrepl

typecheck: $(VENV)/.dev ## types alone: mypy
	@$(BIN)/mypy --no-error-summary

format: $(VENV)/.dev ## let ruff put the Python files into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

c-test: ## the C core alone: strict warnings, address and undefined-behaviour sanitizers
	@$(if $(C_TESTS),:,echo 'tests/c holds no tests: nothing would be tested' >&2; exit 1)
	@mkdir -p $(C_BUILD)
	@echo 'int main(void) { return 0; }' > $(C_BUILD)/probe.c
	@if $(CC) $(C_SANITIZE) $(C_BUILD)/probe.c -o $(C_BUILD)/probe 2>/dev/null && $(C_BUILD)/probe 2>/dev/null; \
	 then echo '==> C core: strict warnings, ASan, UBSan'; sanitize='$(C_SANITIZE)'; \
	 else echo '==> C core: strict warnings only, $(CC) has no working sanitizer runtime'; sanitize=; fi; \
	 set -e; for test in $(C_TESTS); do \
	   program=$(C_BUILD)/$$(basename "$$test" .c); \
	   $(CC) $(C_STRICT) $$sanitize "$$test" $(C_FILES) -o "$$program" -lm; \
	   "$$program"; \
	 done

rules: $(VENV)/.dev $(VENV)/.native ## take each rule of docs/security.md out of the code, and see a test fail
	@$(BIN)/python -m tests.rules

bench: $(VENV)/.dev $(VENV)/.native ## measure, side by side with the alternatives
	@PGREPL_REQUIRE_EXT=1 $(BIN)/python -m benchmarks

build: $(VENV)/.dev ## source distribution and wheel, into dist/
	@echo '==> dist: sdist and wheel'
	@rm -rf dist && mkdir -p build
	@PGREPL_REQUIRE_EXT=1 $(BIN)/python -m build --outdir dist > build/dist.log 2>&1 || { cat build/dist.log >&2; exit 1; }
	@ls -1 dist

servers: $(VENV)/.dev ## fetch the PostgreSQL versions that the tests run against
	@echo '==> PostgreSQL servers for the tests'
	@$(BIN)/python -m tests.support.servers

clean: ## remove what was built; the environment and the fetched servers stay
	@rm -rf build dist pgrepl.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis $(VENV)/.native
	@rm -f pgrepl/codec/_native/*.so pgrepl/codec/_native/*.pyd
	@find pgrepl tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## remove the environment and the fetched servers too
	@rm -rf $(VENV)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pgrepl needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo '==> Python environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.tools: pyproject.toml | $(VENV)/pyvenv.cfg
	@echo '==> Build tools'
	@$(BIN)/python -m pip install $(QUIETLY) $$($(BIN)/python -c \
	  'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	@touch $@

# The package goes in without its extensions; .native builds those, and does so again without another run of pip.
$(VENV)/.demo: pyproject.toml setup.py | $(VENV)/.tools
	@echo '==> Packages for the demo'
	@PGREPL_PURE=1 $(BIN)/python -m pip install $(QUIETLY) --no-build-isolation --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml setup.py | $(VENV)/.tools
	@echo '==> Packages for tests and benchmarks'
	@PGREPL_PURE=1 $(BIN)/python -m pip install $(QUIETLY) --no-build-isolation --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.native: setup.py $(EXT_FILES) | $(VENV)/.tools
	@echo '==> C core'
	@PGREPL_REQUIRE_EXT=1 $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
