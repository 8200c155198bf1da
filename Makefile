# The environment is made once and made again only when a dependency changes.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: train explore serve test test-slow docs docs-serve lint format lock clean

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

# The site, docs/_build/html/index.html, its code cells run: a false one fails.
docs: $(READY)
	$(VENV)/bin/sphinx-build -W --keep-going -q -j 16 docs docs/_build/html

docs-serve: docs
	@echo "The site is at http://127.0.0.1:8602 (Ctrl-C ends it)."
	@$(VENV)/bin/python -m http.server 8602 --bind 127.0.0.1 --directory docs/_build/html

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# One lock file for every Python that pyproject.toml claims; needs uv (pip install uv).
lock:
	uv pip compile --universal --python-version 3.10 --extra dev --extra docs --extra explorer --no-header pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@
