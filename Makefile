PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The versions that all tests ran with; CONSTRAINTS=/dev/null takes the newest.
CONSTRAINTS ?= constraints.txt
INSTALL = $(BIN)/python -m pip install -q -c $(CONSTRAINTS)

.PHONY: demo ready test compiled readme lint bench mutants paper calibrate-gpu wheel clean

demo: $(VENV)/.ready
	$(BIN)/kvplan plan

test: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n auto

# The same source with what runs for every turn as machine code, in an environment of its own, and a choice of tests there. Needs a C compiler.
COMPILED ?= .venv-compiled
compiled: $(COMPILED)/.compiled
	PYTHONSAFEPATH=1 $(COMPILED)/bin/python -m pytest -n auto $(CHOSEN:%=tests/test_%.py)

$(COMPILED)/.compiled: $(shell find sim hwmodels -name '*.py') pyproject.toml setup.py
	test -x $(COMPILED)/bin/python || $(PYTHON) -m venv $(COMPILED)
	$(COMPILED)/bin/python -m pip install -q -c $(CONSTRAINTS) -e '.[compile,test]'
	$(MAKE) -s wheel KVPLAN_COMPILED=1 DIST=$(COMPILED)/wheel PYTHON=$(COMPILED)/bin/python
	$(COMPILED)/bin/python -m pip install -q --no-deps --force-reinstall $(COMPILED)/wheel/kvplan-*.whl
	touch $@

# Tests of what is compiled, and of what makes use of it.
CHOSEN = compiled unchanged engine store policies eviction batching by_hand loads proofs replay timeline provenance

# The commands of the README that take ten seconds and more, as they are printed there.
READ ?= slow or minutes
readme: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n auto -m "$(READ)" tests/test_readme.py

lint: $(VENV)/.lint-ready build/links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/links && $(abspath $(BIN))/python -m mypy --config-file ../../pyproject.toml -p kvplan

bench: $(VENV)/.ready
	$(BIN)/kvplan validate bench reading policycost planbench

mutants: $(VENV)/.test-ready
	$(BIN)/python tests/mutants/run.py

paper: $(VENV)/.ready
	$(BIN)/kvplan validate paper --reconcile --html docs/paper.html --markdown docs/paper.md
	$(BIN)/kvplan validate published --html docs/published.html --markdown docs/published.md

# The package as a tree of links, for what reads sources without installing them: mypy, and the GPU box below.
ROOMS = sim hwmodels traces validate
LINKED = PYTHONPATH=build/links $(PYTHON) -P
build/links:
	mkdir -p build/links/kvplan
	for file in __init__.py __main__.py commands.py py.typed foreign; do ln -sfn ../../../kvplan/$$file build/links/kvplan/$$file; done
	for room in $(ROOMS); do ln -sfn ../../../$$room build/links/kvplan/$$room; done

# On a machine with a GPU, with a PYTHON that has PyTorch, NumPy and PyYAML: about 8 minutes. Fitting needs kvplan and SciPy as well.
CASE ?= validate/cases/$(shell hostname)
calibrate-gpu: build/links
	$(LINKED) -m kvplan.validate measure --device cuda --model llama-2-13b --layers 20 --budget 220 --out $(CASE)
	$(LINKED) -m kvplan.validate measure --device cuda --model llama-3.1-8b --layers 16 --budget 220 --out $(CASE)
	$(LINKED) -m kvplan.validate fit $(CASE) || echo "measured; fit it where kvplan and SciPy are installed: kvplan validate fit $(CASE)"

# build/lib keeps files that are gone from the sources, and they would go into the wheel. Compiled with KVPLAN_COMPILED=1, in an environment
# that has `.[compile]`.
DIST ?= dist
wheel:
	rm -rf build/lib* build/bdist.*
	$(if $(KVPLAN_COMPILED),KVPLAN_COMPILED=$(KVPLAN_COMPILED)) $(PYTHON) -m pip wheel -q --no-deps $(if $(KVPLAN_COMPILED),--no-build-isolation) -w $(DIST) .

clean:
	rm -rf $(VENV) dist build *.egg-info

$(VENV)/.ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.test-ready: pyproject.toml $(VENV)/.ready
	$(INSTALL) -e '.[test]'
	touch $@

# All that lint and tests need, in one go of pip.
ready:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[lint,test]'
	touch $(VENV)/.ready $(VENV)/.lint-ready $(VENV)/.test-ready

$(VENV)/.lint-ready: pyproject.toml $(VENV)/.ready
	$(INSTALL) -e '.[lint]'
	touch $@
