# The course's commands. Nothing is needed but Python 3.11 or newer, make, and a package index for the first start.

SHELL  := /bin/sh
PYTHON ?=
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
WORKERS ?= 2
TORCH  ?= cpu

# On Linux the ordinary index's own torch brings 3 GB of CUDA packages; the CPU build comes from PyTorch's index.
# config/cpu-only.txt makes an installation that would pull CUDA in fail instead.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
CONSTRAINTS := -c constraints.txt $(if $(filter cpu,$(TORCH)),-c config/cpu-only.txt)
TORCH_INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url $(TORCH_CPU_INDEX) --retries 1)
NO_TORCH := No $(TORCH) build of torch could be installed. If this machine cannot reach $(TORCH_CPU_INDEX), set \
	TORCH_CPU_INDEX to a mirror of it; to take the CUDA build, make TORCH=cuda
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq $(CONSTRAINTS)

.PHONY: help lab test setup notebooks kill-tables pins clean

help:
	@echo "make lab           set up everything and open JupyterLab at the home page (ARGS=\"--no-browser --port 8899\")"
	@echo "make test          set up everything and run the whole test suite (ARGS=\"tests/kv -x\" for a part)"
	@echo "make notebooks     build all notebooks from their masters"
	@echo "make kill-tables   show that every lab's checks catch every known misconception"
	@echo "make setup         only set up .venv"
	@echo "make clean         remove .venv and caches"
	@echo
	@echo "WORKERS=4          processes that share the tests (2)"
	@echo "PYTHON=python3.12  the Python to use        TORCH=cuda  PyTorch with CUDA (after make clean)"

lab: $(VENV)/.ready-lab
	@$(BIN)/python -m llmcourse lab $(ARGS)

test: $(VENV)/.ready-test
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

setup: $(VENV)/.ready-lab

notebooks: $(VENV)/.ready-lab
	@$(BIN)/python -m llmcourse.grading.builder
	@$(BIN)/python -m llmcourse.cli.home
	@$(BIN)/python -m llmcourse.grading.builder >/dev/null

kill-tables: $(VENV)/.ready-lab
	@$(BIN)/python -m llmcourse.grading.kill_table $(ARGS)

# For maintainers: rewrite constraints.txt from a .venv that holds every extra.
pins: $(VENV)/.ready-test
	@$(PIP) --no-build-isolation --editable '.[dev,hub,ray,serve]'
	@$(BIN)/python config/pin.py > constraints.new && mv constraints.new constraints.txt

$(BIN)/python:
	@sh config/make-venv.sh $(VENV) $(PYTHON)

# torch first: with the right build installed, nothing later asks the index for another.
$(VENV)/.torch-$(TORCH): constraints.txt | $(BIN)/python
	@echo "Installing PyTorch ($(TORCH) build); the first time this takes a minute or two"
	@$(PIP) $(TORCH_INDEX) torch 2>$(VENV)/torch.log || { cat $(VENV)/torch.log >&2; echo "$(NO_TORCH)" >&2; exit 2; }
	@touch $@

$(VENV)/.ready-lab: pyproject.toml constraints.txt $(VENV)/.torch-$(TORCH)
	@echo "Installing the course"
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt $(VENV)/.torch-$(TORCH)
	@echo "Installing the course and its tests"
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@ $(VENV)/.ready-lab

clean:
	rm -rf $(VENV) build llmcourse.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
