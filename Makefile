# `make demo` and `make test` need Python >= 3.10 and nothing else: each builds the environment it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test slow lint clean

demo: $(VENV)/core
	@$(BIN)/shapleaf demo

test: $(VENV)/dev
	@$(BIN)/python -m pytest -n 2 --cov --cov-report=term

slow: $(VENV)/dev
	@$(BIN)/python -m pytest -m slow

lint: $(VENV)/dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

# A stamp is newer than what it was made from, so that a second `make` installs nothing.
$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

$(VENV)/dev: $(VENV)/core
	$(INSTALL) --editable '.[dev]'
	@touch $@
