PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The versions that all tests ran with; CONSTRAINTS=/dev/null takes the newest.
CONSTRAINTS ?= constraints.txt
INSTALL = $(BIN)/python -m pip install -q -c $(CONSTRAINTS)

.PHONY: demo ready test compiled test-compiled readme docs notebooks lint bench mutants paper calibrate-gpu wheel dist clean

demo: $(VENV)/.ready
	$(BIN)/kvplan plan

test: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n auto

# The same source with what runs for every turn as machine code, in an environment of its own, and a choice of tests there. Needs a C compiler.
COMPILED ?= .venv-compiled
compiled: $(COMPILED)/.compiled
	$(MAKE) -s test-compiled VENV=$(COMPILED)

test-compiled:
	PYTHONSAFEPATH=1 $(BIN)/python -m pytest -n auto $(CHOSEN:%=tests/test_%.py)

$(COMPILED)/.compiled: $(shell find sim hwmodels -name '*.py') pyproject.toml setup.py
	test -x $(COMPILED)/bin/python || $(PYTHON) -m venv $(COMPILED)
	$(COMPILED)/bin/python -m pip install -q -c $(CONSTRAINTS) -e '.[compile,test]'
	rm -rf $(COMPILED)/wheel  # one of another commit has another version
	$(MAKE) -s wheel KVPLAN_COMPILED=1 DIST=$(COMPILED)/wheel PYTHON=$(COMPILED)/bin/python
	$(COMPILED)/bin/python -m pip install -q --no-deps --force-reinstall $(COMPILED)/wheel/kvplan-*.whl
	touch $@

# Tests of what is compiled, and of what makes use of it.
CHOSEN = compiled unchanged engine blockengine blocks explain_blocks store policies eviction batching by_hand loads proofs replay timeline provenance

# What takes ten seconds and more: commands of the README and of the manual, as they are printed there, and the notebooks.
READ ?= slow or minutes
PAGES ?= readme docs notebooks
readme: $(VENV)/.test-ready
	$(BIN)/python -m pytest -n auto --durations=12 -m "$(READ)" $(PAGES:%=tests/test_%.py)

# The manual as pages, build/site/index.html: without a network once what it needs is installed, and with no warning.
docs: $(VENV)/.docs-ready build/links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q --strict

# Runs the notebooks, and keeps what they print and draw.
notebooks: $(VENV)/.docs-ready
	$(BIN)/python -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

lint: $(VENV)/.lint-ready build/links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/links && $(abspath $(BIN))/python -m mypy --config-file ../../pyproject.toml -p kvplan

# With AGAINST=COMMIT beside that one instead, pure and, where `make compiled` was, compiled.
AGAINST ?=
BENCHED = $(VENV)/.ready $(if $(AGAINST),$(patsubst %,%/.compiled,$(wildcard $(COMPILED))))
bench: $(BENCHED)
	$(if $(AGAINST),,$(BIN)/kvplan validate bench reading policycost planbench && $(BIN)/kvplan validate blockbench)
	$(if $(AGAINST),code=0; for each in $(^D); do $$each/bin/kvplan validate against $(AGAINST) || code=1; done; exit $$code)

mutants: $(VENV)/.test-ready
	$(BIN)/python tests/mutants/run.py

paper: $(VENV)/.ready
	$(BIN)/kvplan validate paper --reconcile --html docs/figures/paper.html --markdown docs/paper.md
	$(BIN)/kvplan validate published --reconcile --html docs/figures/published.html --markdown docs/published.md

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

# What would be published: a wheel and a source archive, whose metadata are checked. The version is that of the commit's tag, `v0.1.0`; between
# tags it is a development version of the next. The Dockerfile is linted, for an image needs docker.
dist: $(VENV)/.dist-ready
	$(BIN)/hadolint Dockerfile
	rm -rf build/lib* build/bdist.*
	$(BIN)/python -m build -o $(DIST)
	$(BIN)/python -m twine check --strict $(DIST)/*

clean:
	rm -rf $(VENV) $(COMPILED) dist build *.egg-info

$(VENV)/.ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.test-ready: pyproject.toml $(VENV)/.ready
	$(INSTALL) -e '.[test]'
	touch $@

# All that lint, tests and the manual need, in one go of pip.
ready:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[lint,test,docs]'
	touch $(VENV)/.ready $(VENV)/.lint-ready $(VENV)/.test-ready $(VENV)/.docs-ready

$(VENV)/.docs-ready: pyproject.toml $(VENV)/.ready
	$(INSTALL) -e '.[docs]'
	touch $@

$(VENV)/.dist-ready: pyproject.toml $(VENV)/.ready
	$(INSTALL) -e '.[dist]'
	touch $@

$(VENV)/.lint-ready: pyproject.toml $(VENV)/.ready
	$(INSTALL) -e '.[lint]'
	touch $@
