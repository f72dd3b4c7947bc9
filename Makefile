# Every target makes its own virtual environment and installs what it needs: Python 3.11 and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PB := serve/rpc/pb
PROTO := lowpass/v1/recommender.proto

.PHONY: demo test soak fuzz floors check fmt proto proto-check bench bench-scale bench-sharded results clean
.DEFAULT_GOAL := demo

$(VENV)/python: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo: $(VENV)/python
	$(PIP) install -c constraints.txt -e '.[distill,export,serve]'
	touch $@

# TorchRec requires FBGEMM for CUDA by name: it comes alone, beside the one for CPUs that the extra names.
TORCHREC = $(PIP) install -c constraints.txt --no-deps torchrec

$(VENV)/test: $(VENV)/python
	$(PIP) install -c constraints.txt -e '.[test]'
	$(TORCHREC)
	touch $@

$(VENV)/dev: $(VENV)/python
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(TORCHREC)
	touch $@

demo: $(VENV)/demo  ## invented data -> teacher -> student -> bundles -> gRPC answers -> the comparison
	PATH="$(CURDIR)/$(BIN):$$PATH" bash deploy/demo.sh

test: $(VENV)/test  ## the tests; those on real data skip, with a reason, where ../shared/data is absent
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not soak'

soak: $(VENV)/test  ## the tests that reload, crash and measure memory over minutes
	$(BIN)/python -m pytest -m soak

fuzz: $(VENV)/test  ## what comes from outside, as random as hypothesis makes it, for minutes: make fuzz EXAMPLES=50000
	FUZZ_EXAMPLES=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest -m fuzz -n auto --dist worksteal --hypothesis-profile=fuzz \
		--hypothesis-show-statistics -o timeout=7200

floors: $(VENV)/python  ## bundle, index and server with the least versions that pyproject.toml allows, in .venv/floors
	$(PIP) install uv
	$(PYTHON) -m venv $(VENV)/floors
	$(BIN)/uv pip install --quiet --python $(VENV)/floors/bin/python --resolution lowest-direct -e '.[test]'
	$(VENV)/floors/bin/python -m pytest -n auto --dist worksteal -m 'not soak and not real_data' tests/export tests/serve

check: $(VENV)/dev proto-check  ## style, types, import laws, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(VENV)/dev  ## regenerate the committed protobuf and gRPC code
	$(BIN)/python protos/generate.py $(PB)

proto-check: $(VENV)/dev
	$(BIN)/buf lint protos
	$(BIN)/python protos/generate.py --check $(PB)

bench-sharded: $(VENV)/test  ## two ranks beside one process: steps, memory, bytes; a few seconds
	$(BIN)/python -m tests.benchmarks.sharded

bench: $(VENV)/test  ## speed, as ratios taken in one run; takes minutes
	$(BIN)/python -m pytest tests/benchmarks -o addopts= -s

bench-scale: $(VENV)/test  ## what each step costs at 1, 5 and 20 million interactions (hours, resumable): make bench-scale SIZES="S M" STEPS="import export" AGAIN=1
	$(BIN)/python -m tests.benchmarks.scale --folder scale $(if $(SIZES),--sizes '$(SIZES)') $(if $(STEPS),--steps '$(STEPS)') \
		$(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(AGAIN),--again)

results: $(VENV)/test  ## run the cells of results/plan.toml that are missing (hours, resumable); write RESULTS.md and its studies
	OMP_NUM_THREADS=1 $(BIN)/python -m results $(if $(ONLY),--only '$(ONLY)') $(if $(JOBS),--jobs $(JOBS))

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis demo
