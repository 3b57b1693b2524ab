# `make demo` and `make test` work on a fresh machine with Python >= 3.11, pip and make.
PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
BIN := .venv/bin
EXTRAS ?= cpu
STAMP := .venv/.installed-$(EXTRAS)
DEVSTAMP := .venv/.installed-$(EXTRAS)-dev
DOCSTAMP := .venv/.installed-$(EXTRAS)-docs
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1

.PHONY: demo app test test-slow check format bench docs wheel clean help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(STAMP) ## find, rerank and explain on the picture book
	$(BIN)/mmrerank demo

app: $(STAMP) ## the web page, on the picture book
	$(BIN)/mmrerank demo app

test: $(DEVSTAMP) ## the default test suite, on two cores
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(DEVSTAMP) ## what the default suite leaves out for time
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "slow or browser"

check: $(DEVSTAMP) ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing
	$(BIN)/lint-imports

format: $(DEVSTAMP) ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEVSTAMP) ## speed and memory, by hand
	@for f in bench/*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

docs: $(DOCSTAMP) ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: .tools/bin/uv ## build dist/*.whl
	$(UV) build --wheel

# pip refuses to touch some system Pythons; a target folder of our own is always allowed
.tools/bin/uv:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .tools uv

$(BIN)/python: | $(filter .tools/bin/uv,$(UV))
	$(UV) venv --quiet --python $(PYTHON) .venv

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(DEVSTAMP): $(STAMP)
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS),dev,train]'
	@touch $@

$(DOCSTAMP): $(DEVSTAMP)
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS),dev,train,docs]'
	@touch $@

clean: ## remove what was built (not the environment)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
