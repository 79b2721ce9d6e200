# Two commands do everything: `make demo` and `make test`.
# PYTHON: any interpreter from 3.11 to 3.13 with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# TensorFlow Addons ends at Python 3.11.
ORACLES_PYTHON ?= python3.11
ORACLES := .venv-oracles

# Of Keras, beside TensorFlow. PyTorch can be a large download: see
# tests/backends/constraints.txt, or give BACKENDS=jax.
BACKENDS ?= jax torch
VENV_BACKENDS := .venv-backends
VENV_EXTRAS := .venv-extras
VENV_BENCH := .venv-bench
VENV_WHEEL := .venv-wheel
EXCHANGE := $(CURDIR)/runs/backends

# What PyTorch computes and saves, for the tests of imported weights; torch as
# in tests/backends/constraints.txt.
VENV_WEIGHTS := .venv-weights
WEIGHTS := $(CURDIR)/runs/weights

# The pages in a browser: Playwright drives Debian's Chromium.
VENV_PAGES := .venv-pages
PAGES := runs/pages
PAGES_FLAGS := --flagfile=tests/browser/pages.flags

# Processes that run tests, each with one thread of TensorFlow.
JOBS ?= 2
IN_PROCESSES := -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Mutations of each format that `make fuzz` tries, see tests/fuzz/fuzzing.py.
MUTATIONS ?= 10000

.PHONY: chromium demo test quick fuzz api test-backends test-extras test-weights \
	test-pages test-wheel bench-embed install lint format oracles clean

demo: $(INSTALLED)
	$(BIN)/python -m sare_tf.demo --flagfile=configs/demo.flags

test: lint
	$(BIN)/python -m pytest $(IN_PROCESSES)

# The inner loop: without trainings of whole runs, kills and several workers.
quick: lint
	$(BIN)/python -m pytest $(IN_PROCESSES) \
		-m "not own_process and not slow"

# docs/api.md, from the docstrings.
api: $(INSTALLED)
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python docs/make_api.py

# Damaged images, records, indexes, checkpoints, exports, weight files and
# requests: no traceback and no silent change. Takes hours.
fuzz: $(INSTALLED)
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/fuzz/fuzzing.py $(MUTATIONS)

# Layers and losses on other backends, in an environment without TensorFlow:
# each writes what it computes, then each is compared with the others.
test-backends: $(INSTALLED)
	test -x $(VENV_BACKENDS)/bin/python || $(PYTHON) -m venv $(VENV_BACKENDS)
	$(VENV_BACKENDS)/bin/python -m pip install --quiet -c constraints.txt \
		-c tests/backends/constraints.txt -r tests/backends/requirements.txt \
		$(BACKENDS)
	rm -rf $(EXCHANGE)
	set -e; export PYTHONPATH=$(CURDIR) SARE_TF_BACKENDS=$(EXCHANGE); \
	write="tests/backends/exchange.py $(EXCHANGE)"; \
	KERAS_BACKEND=tensorflow $(BIN)/python $$write; \
	for backend in $(BACKENDS); do \
		KERAS_BACKEND=$$backend $(VENV_BACKENDS)/bin/python $$write; \
	done; \
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest tests/backends; \
	for backend in $(BACKENDS); do \
		KERAS_BACKEND=$$backend $(VENV_BACKENDS)/bin/python -m pytest \
			tests/backends tests/model/test_netvlad.py \
			tests/model/test_pooling.py tests/losses/test_sare.py \
			tests/losses/test_tuple_losses.py tests/losses/test_place_losses.py \
			tests/losses/test_place_labels.py tests/losses/test_pair_losses.py; \
	done

# What needs the extras beam, similarity and engines, with the versions they
# allow.
test-extras:
	test -x $(VENV_EXTRAS)/bin/python || $(PYTHON) -m venv $(VENV_EXTRAS)
	$(VENV_EXTRAS)/bin/python -m pip install --quiet \
		-c tests/extras/constraints.txt -e ".[dev,beam,similarity,engines]"
	$(VENV_EXTRAS)/bin/python -m pytest tests/distributed/test_beam.py \
		tests/distributed/test_beam_index.py \
		tests/losses/test_similarity_losses.py \
		tests/losses/test_similarity_sampler.py tests/extras

# Weights of PyTorch's projects: networks in plain PyTorch are saved as those
# save them, imported here and compared, then exported and loaded again.
test-weights: $(INSTALLED)
	test -x $(VENV_WEIGHTS)/bin/python || $(PYTHON) -m venv $(VENV_WEIGHTS)
	$(VENV_WEIGHTS)/bin/python -m pip install --quiet -c constraints.txt \
		-c tests/backends/constraints.txt h5py numpy pillow torch
	rm -rf $(WEIGHTS)
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/pytorch/pictures.py $(WEIGHTS)
	$(VENV_WEIGHTS)/bin/python tests/pytorch/networks.py $(WEIGHTS)
	$(VENV_WEIGHTS)/bin/python tests/pytorch/published.py $(WEIGHTS)
	SARE_TF_WEIGHTS=$(WEIGHTS) $(BIN)/python -m pytest tests/pytorch \
		tests/model/torchvision tests/weights
	$(VENV_WEIGHTS)/bin/python tests/pytorch/loads.py $(WEIGHTS)
	cat $(WEIGHTS)/differences.txt

# The pages of a small city, in Chromium: contrast, keyboard, phone and paper.
# Screenshots lie in runs/pages/shots, to be looked at.
test-pages: chromium $(INSTALLED) $(PAGES)/comparison/compare.html
	test -x $(VENV_PAGES)/bin/python || $(PYTHON) -m venv $(VENV_PAGES)
	$(VENV_PAGES)/bin/python -m pip install --quiet -c constraints.txt \
		-r tests/browser/requirements.txt
	SARE_TF_PAGES=$(PAGES) $(VENV_PAGES)/bin/python -m pytest tests/browser

chromium:
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null \
		|| { echo "Expected Chromium to test the pages in. Received: no" \
		"chromium and no google-chrome on the PATH. Run apt-get install" \
		"chromium, or install Google Chrome."; exit 1; }

# Made once; `make clean` removes them.
$(PAGES)/comparison/compare.html: | $(INSTALLED)
	$(BIN)/python -m sare_tf.demo $(PAGES_FLAGS)
	$(BIN)/python -m sare_tf.check $(PAGES_FLAGS)
	$(BIN)/python -m sare_tf.compare $(PAGES_FLAGS) \
		$(PAGES)/untrained/evaluation $(PAGES)/evaluation
# Exported backbones beside PyTorch; torch as in tests/backends/constraints.txt.
bench-embed:
	test -x $(VENV_BENCH)/bin/python || $(PYTHON) -m venv $(VENV_BENCH)
	$(VENV_BENCH)/bin/python -m pip install --quiet -c constraints.txt \
		-c tests/backends/constraints.txt -e ".[bench]"
	$(VENV_BENCH)/bin/python -m benchmarks.embed
	$(VENV_BENCH)/bin/python -m benchmarks.finetune_step

# The wheel with everything that it needs, in an environment of its own.
test-wheel: $(INSTALLED)
	rm -rf $(VENV_WHEEL)
	SARE_TF_WHEEL_ENVIRONMENT=$(CURDIR)/$(VENV_WHEEL) $(BIN)/python -m pytest \
		tests/test_wheel.py

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
	rm -rf $(VENV) $(VENV_BACKENDS) $(VENV_BENCH) $(VENV_EXTRAS) $(VENV_PAGES)
	rm -rf $(VENV_WEIGHTS) $(VENV_WHEEL) $(ORACLES)
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache
