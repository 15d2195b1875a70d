# Two commands do it all: `make demo` and `make test`. Both make .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test docs bench clean
demo: .venv/.installed
	$(BIN)/innervision demo -o out/demo

test: .venv/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest

docs: .venv/.docs
	$(BIN)/mkdocs build

bench: .venv/.installed
	$(BIN)/python benchmarks/stylize.py --python $(BIN)/python

clean:
	rm -rf .venv out build dist site .pytest_cache .ruff_cache

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "innervision needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# Editable, so that an edit of the source needs no second installation.
.venv/.installed: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

.venv/.test: .venv/.installed
	$(PIP) -e '.[test]'
	@touch $@

.venv/.docs: .venv/.installed
	$(PIP) -e '.[docs]'
	@touch $@
