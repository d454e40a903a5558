# What people type in this repository; `make` alone lists it.
PYTHON := .venv/bin/python
SHELL_FILES := .ci/run $(wildcard scripts/*.sh egs2/*/s2t1/*.sh tests/*.sh)

.DEFAULT_GOAL := help
.PHONY: help env mini test lint bench lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' Makefile | expand -t 16

env:  ## make or update .venv
	@scripts/setup_env.sh

mini: env  ## train, decode and score on a small real corpus: half an hour on two cores
	egs2/mini_ipapack/s2t1/run_ctc.sh --align true

# Three processes for two cores: now and then a test waits, for Slurm above all. Modules
# are compiled once, not by each of the hundreds of processes that tests start.
test: env  ## run the tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 \
		$(PYTHON) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

lint: env  ## check style and shell scripts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/shellcheck $(SHELL_FILES)

bench: env  ## measure speed: the programs of scripts/bench, a JSON line each
	@set -e; for script in $$(grep -l __main__ scripts/bench/*.py); do \
	    echo "== $$script"; $(PYTHON) $$script; done

lock: env  ## resolve pyproject.toml into requirements.lock anew
	.venv/bin/uv pip compile --system-certs --universal --generate-hashes --upgrade \
	    --no-header --no-annotate --python-version 3.12 --group dev \
	    --output-file requirements.lock pyproject.toml

clean:  ## remove what the recipes made: exp, dump, data; downloads and .venv stay
	rm -rf egs2/*/s2t1/exp egs2/*/s2t1/dump egs2/*/s2t1/data
