PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test bench paper calibrate-gpu wheel clean

demo: $(VENV)/.ready
	$(BIN)/kvplan simulate

test: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n auto

bench: $(VENV)/.ready
	$(BIN)/python -m validate bench reading policycost

paper: $(VENV)/.ready
	$(BIN)/python -m validate paper

# On a machine with a GPU, with a PYTHON that has PyTorch, NumPy and PyYAML: about 8 minutes. Fitting needs kvplan and SciPy as well.
CASE ?= validate/cases/$(shell hostname)
calibrate-gpu:
	$(PYTHON) -m validate measure --device cuda --model llama-2-13b --layers 20 --budget 220 --out $(CASE)
	$(PYTHON) -m validate measure --device cuda --model llama-3.1-8b --layers 16 --budget 220 --out $(CASE)
	$(PYTHON) -m validate fit $(CASE) || echo "measured; fit it where kvplan and SciPy are installed: python -m validate fit $(CASE)"

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
