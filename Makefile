# Every target makes the virtual environment it needs; another Python: make test PYTHON=python3.12
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo bench test install-test notebooks docs readme clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

demo: $(READY)  ## refine the embedded weights on the embedded clip, print the error before and after
	@$(BIN)/refinemotion demo

bench: $(READY)  ## the plain way and ours side by side: speed, memory, price (an hour, and once an hour more for the paper's budget; ONLY=step takes one section)
	@$(BIN)/python tools/bench.py --only '$(ONLY)'

test: $(READY)  ## modules in step with the notebooks, then every test
	@$(BIN)/python tools/check_sync.py
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

install-test: $(READY)  ## install the package as a user would, in a second environment with the newest fastcore
	@$(BIN)/python -m pytest -m install

notebooks: $(READY)  ## execute every notebook in place, slow cells excepted (tools/execute.py --slow runs those too)
	@$(BIN)/python tools/execute.py

readme: $(READY)  ## README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

docs: $(READY) readme  ## the site, into _docs/
	@$(BIN)/python tools/build_docs.py

clean:  ## remove what is built; the virtual environment stays
	rm -rf build dist _docs _proc *.egg-info .pytest_cache
	find refinemotion nbs tests tools -name __pycache__ -prune -exec rm -rf {} +

# Made once, and again when what it is made from changes.
$(READY): settings.ini setup.py pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'No Python found: install Python 3.11, or name one: make PYTHON=/path/to/python'; exit 1; }
	@echo 'Setting up $(VENV) with $(PYTHON): a few minutes the first time'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq -c constraints.txt torch
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	@touch $@
