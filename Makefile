# Every target works on a fresh machine: `make demo` and `make test` are the two to know.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo run test check interop chaos docs bench

setup: $(STAMP)

$(STAMP): pyproject.toml config/wheel.py config/constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt -e '.[test,evaluation]'
	touch $@

demo: $(STAMP)
	$(BIN)/ecg-gateway demo

run: $(STAMP)
	$(BIN)/ecg-gateway serve

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest -m "not interop" -n 2 --dist worksteal

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file config/mkdocs.yml
	$(BIN)/pytest tests/test_docs.py

interop: $(STAMP)
	sh tests/interop/install_peers.sh
	$(BIN)/pytest -m interop -rs -n 2 --dist loadfile

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos $(if $(filter short,$(CHAOS)),--seconds 120 --stall 10,--seconds 780)

bench: $(STAMP)
	$(BIN)/ecg-digitize bench
