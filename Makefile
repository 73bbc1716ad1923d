# Every target makes .venv and installs what it needs, if it is not there yet.
#   make PYTHON=python3.12 test       another Python (>= 3.11)
#   make test ARGS="-k wheel -x"      more arguments for what the target runs
#   make test WORKERS=0               tests one after the other, in one process (--pdb needs that)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-box test golden bench box box-down box-shell lint docs clean

PYTHON ?=
ARGS ?=
# More than two cores have: most of the time a test waits for a queue.
WORKERS ?= 4
export PYTHON
# Some images forbid it: then each of some thousand Pythons would compile hpcml anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := sh tools/venv.sh
BIN := .venv/bin

help:
	@echo "make demo    train on real climate data, on this machine"
	@echo "make demo-box  the same on a supercomputer in a box, over SSH (as root)"
	@echo "make test    run the tests"
	@echo "make golden  write reviewed plans and what is made of the model anew; show what changed"
	@echo "make bench   measure hpcml's own overheads"
	@echo "make box     a supercomputer in a box: Slurm on six hosts (box-shell, box-down)"
	@echo "make lint    ruff, mypy, import contracts"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove .venv and everything that the targets made"

demo:
	@$(VENV) demo
	@$(BIN)/python examples/temperature/demo.py $(ARGS)

demo-box:
	@$(VENV) demo
	@$(BIN)/python -m examples.box

test:
	@$(VENV) test demo lint bench
	@$(BIN)/python -m compileall -q hpcml  # the hosts of a box only read it
	@# Another worker in the place of one that a test has hung in would go on with that test.
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		--max-worker-restart=0 $(ARGS)

golden:
	@$(VENV) test
	@$(BIN)/python -m tests.docs.keys
	@$(BIN)/python -m tests.golden

bench:
	@$(VENV) bench
	@$(BIN)/python -m benchmarks $(ARGS)

box:
	@$(VENV) test
	@$(BIN)/python -m tests.testbed up $(ARGS)

box-down:
	@$(BIN)/python -m tests.testbed down $(ARGS)

box-shell:
	@$(BIN)/python -m tests.testbed shell $(ARGS)

lint:
	@$(VENV) lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs:
	@$(VENV) docs
	$(BIN)/mkdocs build --strict $(ARGS)

clean:
	rm -rf .venv site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
