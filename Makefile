# The environment is made once and made again only when a dependency changes.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: train explore serve test test-slow lint format lock clean

train: $(READY)
	$(VENV)/bin/python train.py --latent_dim 2

# A page on which you walk through the latent space of the newest run.
explore: $(READY)
	$(VENV)/bin/python -m vae_tf.explorer

# With TensorFlow Serving, or its docker image; else says what to install.
serve:
	deploy/serve.sh

# A process per core, but not more than memory is sure to hold.
PROCESSES := -n auto --maxprocesses 4 --dist loadscope

# Of all, or of those named: make test TESTS=tests/runs
TESTS ?= tests

test: $(READY)
	$(VENV)/bin/python -m pytest $(PROCESSES) -m "not slow" $(TESTS)

test-slow: $(READY)
	$(VENV)/bin/python -m pytest $(TESTS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# One lock file for every Python that pyproject.toml claims; needs uv (pip install uv).
lock:
	uv pip compile --universal --python-version 3.10 --extra dev --extra explorer --no-header pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@
