# The two commands a newcomer needs: make demo, make test.
PYTHON ?= python3
UV := .tools/uv/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never

.PHONY: demo test check lint types imports lock setup clean

demo: setup  ## Run the main job on synthetic CT series
	$(BIN)/boneseg demo $(ARGS)

test: setup  ## Run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

check: lint types imports  ## Everything that reads code without running it

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

setup: .venv/.ready

# uv goes into the project's own folder: nothing on the machine changes.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "boneseg needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .tools/uv || { echo "python3 has no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	.tools/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'

.venv/.ready: requirements.lock pyproject.toml | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip sync --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

lock: | $(UV)  ## Pin the dependencies anew from the ranges in pyproject.toml
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 --group dev pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv .tools build
