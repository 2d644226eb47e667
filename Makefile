# `make demo` and `make test` need Python 3.11 or newer and nothing else: each makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRA ?= cpu
JOBS ?= 2

.PHONY: demo test test-slow lint install

install: $(VENV)/installed

$(VENV)/installed: setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[$(EXTRA),dev]"
	touch $@

demo: install
	$(BIN)/python -m tools.demo_data --output data/demo
	$(BIN)/python train.py --config configs/experiments/demo.yaml --model_dir runs/demo
	$(BIN)/python export.py --config runs/demo/config.yaml --checkpoint runs/demo --output runs/demo/saved_model
	$(BIN)/python detect.py --model runs/demo/saved_model --input 'data/demo/val/*0.jpg' --output runs/demo/detected
	@echo
	@echo 'runs/demo/config.yaml        the experiment, every default written out'
	@echo 'runs/demo/metrics.json       AP, AP50 and the protocol they were measured by; detections.json beside it'
	@echo 'runs/demo/checkpoints/       the newest and the best; tensorboard/ has curves and pictures'
	@echo 'runs/demo/saved_model/       the exported detector; README.md inside describes it'
	@echo 'runs/demo/detected/pictures/ what the reloaded export sees in validation images'

test: install lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/python -m tools.tensorlint official configs dataloaders modeling losses tasks serving reproduction tools benchmarks *.py
