# 'make' sets up everything and runs the pipeline; 'make help' lists the other goals.

PYTHON ?= python3
VENV := .venv
MADE := $(VENV)/.made

# The stages run as plain 'python', so that they also work in an environment of your own: ours comes first here.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# The constraints hold for the tools that build packages from source as well: the first name is read by pip before 25.3.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.DEFAULT_GOAL := run
.PHONY: run env test lint format clean help

run: $(MADE) ## run what has changed of the pipeline, and show the scores (what plain 'make' does)
	@dvc repro
	@python -m stages.evaluate --show
	@echo
	@echo "The denoised recordings are in data/denoised: by the model that was just trained, on synthetic speech."
	@echo "For recordings of your own: . .venv/bin/activate, then python -m stages.denoise my-recordings cleaned"

env: $(MADE) ## make the Python environment in .venv, where it is missing or out of date

test: $(MADE) ## run all tests, on up to four cores
	@python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(MADE) ## check style and types
	@ruff check
	@ruff format --check
	@mypy

format: $(MADE) ## put the code into the style that 'make lint' asks for
	@ruff check --fix
	@ruff format

clean: ## remove the environment and the caches of tools; data, models and scores stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find stages tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list these goals
	@echo "make GOAL [PYTHON=python3.12], where GOAL is one of"
	@sed -n 's/^\([a-z][a-z-]*\):.* ## \(.*\)/  \1\t\2/p' Makefile

# Made anew and from nothing, so that no package of an older list stays behind. The stamp comes last: an interrupted run
# leaves none, and the next one starts again.
$(MADE): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "'$(PYTHON)' was not found: install Python 3.11 or later, or name it, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "'$(PYTHON)' is not Python 3.11 or later: name another, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' lacks the module venv: install it (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	python -m pip install --disable-pip-version-check --editable '.[test,lint]' --constraint constraints.txt
	@touch $@
