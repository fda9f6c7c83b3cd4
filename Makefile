# make quickstart   install into .venv and print a leaderboard of real MNIST digits (a few minutes)
# make test         install into .venv, lint and test
# make campaign     make the published tables, most valuable first: DEVICE=cuda MINUTES=60; run it again to go on
# make docs         write the generated parts of README.md and docs/ again
PYTHON ?= python3
BIN := .venv/bin
DEVICE ?= auto
MINUTES ?= 720
CAMPAIGN := campaign/mnist cifar10 papers/bigan_table1 campaign/dcgan_mnist papers/aae_semisupervised \
	papers/aae_clustering campaign/fashion_mnist
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart campaign test lint format docs clean

quickstart: .venv/.installed
	$(BIN)/frostbench run configs/quickstart.yaml

campaign: .venv/.installed
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); \
	for suite in $(CAMPAIGN); do \
		timeout --foreground --signal=INT $$(( end - $$(date +%s) )) $(BIN)/frostbench run $$suite --device $(DEVICE); \
		case $$? in 124) echo "make campaign: $(MINUTES) minutes are over; run it again to go on"; break;; 130) exit 130;; esac; \
		[ $$(date +%s) -lt $$end ] || break; \
	done

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed
	$(BIN)/python docs/tables.py

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# A stamp is as new as the installation it stands for: the second time nothing is done.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Frostbench needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	@echo "Installing Frostbench into .venv (once; PyTorch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/.dev: .venv/.installed
	$(PIP) --editable ".[dev]"
	@touch $@
