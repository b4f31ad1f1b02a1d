# Two commands need nothing before them: make demo, make test.
# the first Python of a version that all dependencies have
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && exit; done; echo python3)
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := .venv/peers/.installed
OPEN_CLIP := .venv/peers/open_clip/.installed
TORCH := torch==2.13.0

.PHONY: demo test proofs study bench bench-quick lint types pytest clean check-machine

demo: $(STAMP)
	$(BIN)/breadth demo --out demo

test: lint types pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# a file's tests stay in one process, which its fixtures and the pictures it draws are made for
pytest: $(STAMP)
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# what is too slow for every change, or needs an environment of its own
proofs: $(STAMP) $(OPEN_CLIP)
	$(BIN)/pytest tests/test_parity_open_clip.py
	$(BIN)/python -m tests.proofs # every toy on five seeds: half an hour or more

$(OPEN_CLIP): $(STAMP) benchmarks/peer_environment.py
	$(BIN)/python -m benchmarks.peer_environment $(@D)
	touch $@

# needs nginx; with the machine to itself it takes three quarters of an hour, the quick one five minutes
bench: $(STAMP) $(PEERS) $(OPEN_CLIP)
	$(BIN)/python -m benchmarks.download
	$(BIN)/python -m benchmarks.loaders
	$(BIN)/python -m benchmarks.training

bench-quick: $(STAMP) $(PEERS) $(OPEN_CLIP)
	$(BIN)/python -m benchmarks.download --quick
	$(BIN)/python -m benchmarks.loaders --quick
	$(BIN)/python -m benchmarks.training --quick

# loaders to compare with, each in an environment of its own that shares this one's packages
$(PEERS): $(STAMP) benchmarks/loader_peers.py
	$(BIN)/python -m benchmarks.loaders --setup $(@D)
	touch $@

study: $(STAMP)
	$(BIN)/breadth study pilot --out study

# torch first, by itself: a CPU build that is already at hand is taken, and nothing else pulls another
$(STAMP): pyproject.toml | check-machine
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(STAMP)

check-machine:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null || \
		{ echo "error: Breadth needs Python 3.11 or 3.12: install one (Debian: apt install python3 python3-venv) or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: this Python has no venv: install it (Debian: apt install python3-venv)" >&2; exit 2; }
	@command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || \
		{ echo "error: fasttext is built from source and needs a C++ compiler: install one (Debian: apt install g++)" >&2; exit 2; }

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache demo study
