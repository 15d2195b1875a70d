# Two commands do it all: `make demo` and `make test`. Both make .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo studio test docs bench clean
demo: .venv/.installed
	$(BIN)/innervision demo -o out/demo

# The studio's pages are built with Node; without it the studio's server still answers, and says so.
PAGES := src/innervision/studio/static/index.html
NPM := $(shell command -v npm)

studio: .venv/.studio $(PAGES)
	$(BIN)/innervision studio$(if $(PORT), --port $(PORT))

test: .venv/.test $(PAGES)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(if $(NPM),cd web && npm run --silent check && npm test --silent)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

docs: .venv/.docs
	$(BIN)/mkdocs build --strict

bench: .venv/.installed
	$(BIN)/python benchmarks/stylize.py --python $(BIN)/python

clean:
	rm -rf .venv out build dist site .pytest_cache .ruff_cache web/node_modules src/innervision/studio/static

$(PAGES): web/package-lock.json web/vite.config.ts web/index.html $(shell find web/src web/public -type f)
ifeq ($(NPM),)
	@echo "The studio's pages are built with Node 20.19 or later, which is not here: its API answers without them."
else
	cd web && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch $@
endif

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "innervision needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# Editable, so that an edit of the source needs no second installation.
.venv/.installed: .venv/.made pyproject.toml constraints.txt
	@echo "Installing innervision and PyTorch into .venv, once: some minutes."
	$(PIP) -e .
	@touch $@

.venv/.test: .venv/.installed
	$(PIP) -e '.[test]'
	@touch $@

.venv/.studio: .venv/.installed
	$(PIP) -e '.[studio]'
	@touch $@

.venv/.docs: .venv/.installed
	$(PIP) -e '.[docs]'
	@touch $@
