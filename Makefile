# Two commands do all the set-up on a machine that has Python 3.11 or newer and make:
#   make demo    a virtual environment, the package, and the whole of DreamBooth on the embedded base
#   make test    the same, then style, types and tests

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint slow docs clean

demo: $(STAMP)
	$(BIN)/dreambooth demo

# As many workers as there are processors, one thread each.
test: $(STAMP) lint
	$(BIN)/python -m pytest -m "not slow" --numprocesses logical --maxprocesses 8 --dist worksteal --durations 10

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -s

# The pages that are written from the program itself.
docs: $(STAMP)
	$(BIN)/python docs/generate_commands.py
	$(BIN)/python docs/generate_profiles.py

lint: $(STAMP)
	$(BIN)/ruff check dbcli tests benchmarks pretraining
	$(BIN)/mypy

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
