PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test bench paper wheel clean

demo: $(VENV)/.ready
	$(BIN)/kvplan simulate

test: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n auto

bench: $(VENV)/.ready
	$(BIN)/python -m validate bench reading policycost

paper: $(VENV)/.ready
	$(BIN)/python -m validate paper

wheel: $(VENV)/.ready
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

clean:
	rm -rf $(VENV) dist build *.egg-info

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.test-ready: pyproject.toml $(VENV)/.ready
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $@
