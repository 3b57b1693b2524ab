# `make demo` and `make test` work on a fresh machine with Python >= 3.11, pip and make.
PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
BIN := .venv/bin
EXTRAS ?= cpu
STAMP := .venv/.installed-$(EXTRAS)
DEVSTAMP := .venv/.installed-$(EXTRAS)-dev
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1

.PHONY: demo app test test-slow check format bench train wheel clean help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(STAMP) ## find, rerank and explain on the bundled picture book
	$(BIN)/mmrerank demo

app: $(STAMP) ## the web page, on the bundled picture book
	$(BIN)/mmrerank app

test: $(DEVSTAMP) ## the default test suite
	$(BIN)/python -m pytest -q

test-slow: $(DEVSTAMP) ## what the default suite leaves out for time
	$(BIN)/python -m pytest -q -m "slow or browser"

check: $(DEVSTAMP) ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/plugins.py
	$(BIN)/lint-imports

format: $(DEVSTAMP) ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## speed, memory and the bundled model, by hand
	@for f in benchmarks/*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

train: $(DEVSTAMP) ## train both bundled models again
	$(BIN)/mmrerank train configs/train/demo-clip.yaml --out runs/clip
	$(BIN)/mmrerank train configs/train/demo-vlm.yaml --out runs/vlm

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

clean: ## remove what was built (not the environment)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
