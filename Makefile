# Two commands do everything: `make demo` and `make test`.
# PYTHON: any interpreter from 3.11 to 3.13 with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# TensorFlow Addons ends at Python 3.11.
ORACLES_PYTHON ?= python3.11
ORACLES := .venv-oracles
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test install lint format oracles clean

demo: $(INSTALLED)
	$(BIN)/python -m sare_tf.demo --flagfile=configs/demo.flags

test: lint
	$(BIN)/python -m pytest

install: $(INSTALLED)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

# Only to make the stored values of other implementations again.
oracles: $(ORACLES)/.installed
	$(ORACLES)/bin/python tests/oracles/addons_values.py

$(ORACLES)/.installed: tests/oracles/requirements.txt
	test -x $(ORACLES)/bin/python || $(ORACLES_PYTHON) -m venv $(ORACLES)
	$(ORACLES)/bin/python -m pip install --quiet -r $<
	touch $@

clean:
	rm -rf $(VENV) $(ORACLES) runs build dist *.egg-info .pytest_cache .ruff_cache
