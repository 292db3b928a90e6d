# Every target does its own set-up on a bare machine with Python 3.11 or 3.12: .venv, the locked packages, this package.
PYTHON ?= python3
BIN := .venv/bin

# Where a machine sets it, every process that a test starts would compile the sources of jax and TensorFlow anew, for 4 to 12 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test test-quick test-full test-slurm check bare results transformers bench-torch lock setup clean

train: .venv/ready
	$(BIN)/python -m jaxopt_lm.train --config=configs/quickstart.py

test: .venv/ready
	$(BIN)/python -m pytest -n auto --dist worksteal

# The inner loop, in under a minute: an optimizer's formulas, the train step, configs.
test-quick: .venv/ready
	$(BIN)/python -m pytest -n auto --dist worksteal \
	  tests/optimizers/test_formulas.py tests/optimizers/test_config.py tests/training/test_step.py tests/test_config.py

test-full: .venv/ready
	$(BIN)/python -m pytest -n auto --dist worksteal --full
	$(BIN)/python -m tests.mutations

# A study on a Slurm cluster of this machine alone, which the test starts and stops; not part of CI. Where Slurm is neither
# installed nor Debian's apt-get can do that, the test is skipped and says so. RUNLEVEL=1 starts no daemons of the packages.
test-slurm: .venv/ready
	test -x /usr/sbin/slurmctld || $$(test $$(id -u) = 0 || echo sudo -n) env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq --no-install-recommends slurm-wlm munge || echo "Slurm cannot be installed here"
	$(BIN)/python -m pytest -rs --slurm tests/studies/test_slurm.py tests/studies/test_slurm_cluster.py

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

# The optimizers in an environment of their own with jax and optax alone, at the locked versions.
bare:
	rm -rf .venv-bare
	$(PYTHON) -m venv .venv-bare
	sed -nE 's/^([A-Za-z0-9_.-]+==[^ ]+).*/\1/p' requirements/lock.txt > .venv-bare/constraints.txt
	.venv-bare/bin/pip install --quiet --disable-pip-version-check --no-compile -c .venv-bare/constraints.txt .
	.venv-bare/bin/python tests/bare.py

# docs/results/README.md and its figures from the tables beside it; says which studies have not been run.
results: .venv/ready
	$(BIN)/python -m jaxopt_lm.papers.results

# Our checkpoint folders in the real transformers, in an environment of its own with PyTorch; not part of CI.
transformers: .venv/ready
	rm -rf .venv-transformers
	$(PYTHON) -m venv .venv-transformers
	.venv-transformers/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
	$(BIN)/python -m tests.write_huggingface --out=.venv-transformers/folders
	.venv-transformers/bin/python tests/check_transformers.py .venv-transformers/folders/*/
	$(BIN)/python -m tests.write_huggingface --out=.venv-transformers/folders --read

# PyTorch in an environment of its own, for benchmarks/train_step.py --torch=.venv-torch/bin/python; not part of CI.
bench-torch: .venv/ready
	rm -rf .venv-torch
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy

setup: .venv/ready

# --no-deps: the lock is complete, and holds tensorflow-cpu where seqio asks for tensorflow. uv installs in a quarter of
# pip's time; pip does where uv cannot, behind an index that pip alone is told of, say.
.venv/ready: requirements/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"Python {v[0]}.{v[1]}: needs 3.11 or 3.12; give PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python=$(BIN)/python --no-deps -r requirements/lock.txt || \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Writes no host name.
lock: .venv/ready
	$(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --override requirements/override.txt \
	  --extra study --extra dev --extra wandb --no-header --no-emit-index-url --quiet \
	  pyproject.toml requirements/lock.in -o requirements/lock.txt

clean:
	rm -rf .venv .venv-bare .venv-transformers .venv-torch .cache build *.egg-info
