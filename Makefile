# The door to the project: `make` lists what it can do.
#
# Every target brings what it needs into .venv; a second call finds it there. Needed beforehand:
# make, Python >= 3.11 (name another one with PYTHON=python3.13) and its venv module.

PYTHON ?= python3
ARGS   ?=

VENV := .venv
BIN  := $(VENV)/bin
COMPILED := build/compiled
COMPILED_TESTS := tests/wire tests/tunnel \
	$(patsubst %,tests/e2e/test_%.py,smoke bytes streams endings cuts bad_peers)
UV   := $(or $(shell command -v uv),$(BIN)/uv)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test soak fuzz e2e lint format bench bench-check bench-fleet reference deploy \
	compiled test-compiled constraints clean

help:  ## list the targets
	@echo 'make <target> [ARGS="..."]'
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target does; do \
		printf '%-17s%s\n' "$$target" "$$does"; done

demo: $(VENV)/.runtime  ## watch traffic cross into a cluster that the control plane cannot reach
	@$(BIN)/python -m konnectivity demo $(ARGS)

test: $(VENV)/.test  ## run the tests
	@$(BIN)/python -m pytest $(ARGS)

soak: $(VENV)/.test  ## run the long tests, SOAK_SECONDS=3600 of churn among them
	@$(BIN)/python -m pytest -m soak $(ARGS)

fuzz: $(VENV)/.test  ## let the property tests look for new examples
	@$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/wire tests/tunnel $(ARGS)

e2e: $(VENV)/.test  ## run the tests that need a cluster, the one that KUBECONFIG names; print restore times
	@$(BIN)/python -m pytest -m cluster $(ARGS)

lint: $(VENV)/.lint  ## ruff, mypy --strict and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.lint  ## let ruff put the sources in order
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.test  ## measure; REF_SERVER and REF_AGENT name a pair to compare with
	@$(BIN)/python -m bench $(ARGS)

bench-check: $(VENV)/.test  ## count instructions of small pieces of work: has one become dearer?
	@$(BIN)/python -m bench.micro $(ARGS)

bench-fleet: $(VENV)/.test  ## simulate many clusters on one manager, ARGS="--clusters 1000"
	@$(BIN)/python -m bench.fleet $(ARGS)

reference: $(VENV)/.runtime  ## write the generated pages of docs/reference anew
	$(BIN)/python -m konnectivity.cli.reference > docs/reference/flags.md
	$(BIN)/python -m konnectivity.cli.metrics_reference > docs/reference/metrics.md
	$(BIN)/python -m konnectivity.cli.spec_reference > docs/reference/agent-spec.md
	$(BIN)/python -m konnectivity.cli.checks_reference
	$(BIN)/python -m konnectivity.cli.commands_reference > docs/reference/commands.md

deploy: $(VENV)/.runtime  ## write deploy/ anew: Helm chart, kustomizations, control plane
	$(BIN)/python -m konnectivity.lifecycle.rendering.deploy

compiled: $(VENV)/.created  ## build a wheel in dist/ with wire/ compiled
	@rm -rf $(COMPILED)
	@mkdir -p $(COMPILED)/source
	@# From a copy: what is compiled is left beside its source, and Python would prefer it there.
	@cp -R pyproject.toml README.md LICENSE src $(COMPILED)/source
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/python -m pip wheel --quiet --no-deps \
		--wheel-dir $(COMPILED) $(COMPILED)/source
	@rm -rf $(COMPILED)/source
	@mkdir -p dist
	@cp $(COMPILED)/*.whl dist
	@cd $(COMPILED) && for wheel in *.whl; do echo "dist/$$wheel"; done

test-compiled: compiled $(VENV)/.test  ## run the tests of wire/ and of both programs on it
	@$(BIN)/python -m zipfile -e $(COMPILED)/*.whl $(COMPILED)/site
	@export PYTHONPATH=$(CURDIR)/$(COMPILED)/site; \
		$(BIN)/python -m konnectivity version | grep compiled && \
		$(BIN)/python -m pytest $(or $(ARGS),$(COMPILED_TESTS))

constraints: $(VENV)/.created  ## pin the newest versions that pyproject.toml allows
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --group dev \
		--no-header --annotation-style line --output-file constraints.txt pyproject.toml

clean:  ## remove everything that was made here, .venv too
	rm -rf $(VENV) build dist bench/build htmlcov .coverage .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
		v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=...")'
	@echo 'making $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@[ -x "$(UV)" ] || $(BIN)/python -m pip install --quiet --quiet uv
	@touch $@

# $(call install,<groups>): the project and these dependency groups, as pinned. pip, where its own
# configuration reaches an index that uv does not find, is the second way to the same packages.
define install
	@echo 'installing into $(VENV): konnectivity $(1)'
	@$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e . $(1) || { \
		$(BIN)/python -m pip install --quiet 'pip>=25.1' && \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e . $(1); }
	@touch $@
endef

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/.created
	$(call install,)

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.created
	$(call install,--group test)

$(VENV)/.lint: pyproject.toml constraints.txt | $(VENV)/.created
	$(call install,--group lint)
