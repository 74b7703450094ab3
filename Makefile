# Two commands for a newcomer: `make demo` and `make test`. Both set themselves up.
SHELL := /bin/bash
VENV := .venv
READY := $(VENV)/ready
PEERS := .venv-interop
EXPORT_PEERS := .venv-interop-exports
# Bytecode is written even where the environment forbids it: half a second of each of some hundred starts.
RUN := env --unset=PYTHONDONTWRITEBYTECODE PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PYTHONHASHSEED=0
# Three processes on two cores, as some tests wait: files in the order of tests/conftest.py, and no thread that spins for work.
PYTEST := $(RUN) OMP_WAIT_POLICY=PASSIVE pytest tests --numprocesses 3 --dist loadfile --no-loadscope-reorder
REST := slow or slurm or browser or real
REPORT := results/tales/report/index.html
LOGS := results/tales/logs
WATCHED := $(LOGS)/train_sae/main.log $(LOGS)/measure_effects/main.0000.log

.PHONY: help setup demo test lint format docs bench-effects bench-activations bench-saes bench-logit-lens gpu-check interop soak test-rest test-all clean distclean

help:
	@echo "make demo    run the default study to $(REPORT)"
	@echo "make setup   the environment in $(VENV), from pinned dependencies (the others make it themselves)"
	@echo "make test    lint, the tests of every room, real runs of the workflow"
	@echo "make test-rest  what make test leaves out: long runs, kills, a private SLURM, browsers, a real model; each is skipped where its service is missing"
	@echo "make test-all   both, as CI does"
	@echo "make lint    ruff, mypy, snakefmt, snakemake --lint"
	@echo "make format  rewrite Python and Snakemake files in the house format"
	@echo "make bench-effects  the effects engine beside the naive way"
	@echo "make bench-activations  the activation cache beside bare passes, SAELens and a file copy (downloads SAELens)"
	@echo "make bench-saes  training of SAEs beside SAELens, dictionary_learning and sparsify (downloads them, over an hour)"
	@echo "make bench-logit-lens  the logit lens at the size of GPT-2 small, beside the published way"
	@echo "make gpu-check  whether a GPU computes what the CPU computes, and how fast; eight minutes of an H100 or H200"
	@echo "make interop SAE files, the chess model and exports of steering held to the libraries they are of and for (downloads them, a few GB)"
	@echo "make soak    kill the default study twenty times at random moments, compare with an undisturbed run (half an hour)"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove the default study's results; make distclean also removes the environments"

setup: $(READY)

$(READY): requirements.lock pyproject.toml envs/setup.sh envs/pip_settings.py
	@envs/setup.sh $(VENV)
	@touch $@

demo: $(READY)
	@echo "To watch what takes longest, in another terminal: tail -F $(WATCHED)"
	@$(RUN) snakemake --cores all --quiet rules
	@echo
	@echo "The report: file://$(CURDIR)/$(REPORT)"

test: lint
	@OMP_NUM_THREADS=1 $(PYTEST) -m "not ($(REST))"

test-rest: $(READY)
	@$(PYTEST) -m "$(REST)"

test-all: test test-rest

lint: $(READY)
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) snakefmt --check Snakefile rules workflow
	@$(RUN) snakemake --lint

format: $(READY)
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .
	@$(RUN) snakefmt Snakefile rules workflow

docs: $(READY)
	@$(RUN) python -m saeflow.kinds
	@$(RUN) mkdocs build --strict

bench-effects: $(READY)
	@$(RUN) python benchmarks/effects.py --samples 8
	@$(RUN) python benchmarks/effects.py
	@$(RUN) python benchmarks/effects.py --dtype bfloat16 --samples 8
	@$(RUN) python benchmarks/effects.py --dtype bfloat16

# torch with what it needs, then the rest without: see the note in the file.
$(PEERS)/ready: tests/interop/requirements.txt | $(READY)
	@$(VENV)/bin/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

$(EXPORT_PEERS)/ready: tests/interop/requirements-exports.txt | $(READY)
	@$(VENV)/bin/python -m venv $(EXPORT_PEERS)
	@$(EXPORT_PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(EXPORT_PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

bench-activations: $(READY) $(PEERS)/ready
	@$(RUN) python benchmarks/activations.py --rows 524288 --rounds 5 --peer $(PEERS)/bin/python

bench-saes: $(READY) $(PEERS)/ready
	@$(RUN) python benchmarks/saes.py --peers $(PEERS) --rounds 3 --steps 12
	@$(RUN) python benchmarks/saes.py --peers $(PEERS) --rounds 3 --steps 8 --dtype bfloat16
	@$(RUN) python benchmarks/saes.py --peers $(PEERS) --rounds 3 --steps 4 --batch 2048 --d-model 2304 --latents 16384
	@$(RUN) python benchmarks/sae_quality.py --peers $(PEERS)

bench-logit-lens: $(READY)
	@$(RUN) python benchmarks/logit_lens.py

# With GPU_PYTHON=python: an environment of your own, whose torch was built for CUDA.
GPU_PYTHON ?= $(VENV)/bin/python
gpu-check:
	@PYTHONHASHSEED=0 PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu_check.py

interop: $(PEERS)/ready $(EXPORT_PEERS)/ready
	@$(RUN) python tests/interop/compare.py $(PEERS)
	@$(RUN) python tests/interop/compare_maia2.py $(PEERS)
	@$(RUN) PYTHONPATH=tests/support python tests/interop/compare_exports.py $(EXPORT_PEERS)

soak: $(READY)
	@$(RUN) PYTHONPATH=tests/support python tests/soak/interruptions.py

clean:
	@rm -rf results/tales site

distclean: clean
	@rm -rf $(VENV) $(PEERS) $(EXPORT_PEERS) .snakemake
