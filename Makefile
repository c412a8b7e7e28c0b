# make help lists the targets. Python 3.11 or later, pip and make are all that has to be there.
#
#   VENV=.venv        environment to make and use; VENV= (empty) uses the active one as it is
#   PYTHON=python3    interpreter that makes the environment, or that of the active one
#   TORCH_INDEX=URL   package index to take torch and torchvision from, such as PyTorch's own
#                     index of CPU builds, which are a tenth of the size
#   WORKERS=2         processes of the package tests
#   BUILD=FOLDER      work in a copy of this checkout there, which then holds all that is made;
#                     for a checkout that cannot be written
#
# make tables and make models, see book/reproduce.md:
#   PROFILE=mini      or paper
#   TABLES="table-1"  these tables; NAMES="..." these records; without both, all
#   PROTOCOL=ours     of the paper profile
#   CORES=2           runs at once, of one thread each; on this machine alone, as a cluster counts for itself
#   GPUS=1            of the paper profile: runs at once, with a GPU and five of the CORES each
#   WHERE=local       or slurm, a folder of workflow/profiles
#   CONFIG=           further settings of workflow/Snakefile, as NAME=VALUE

VENV = .venv
PYTHON = python3
TORCH_INDEX =
WORKERS = 2
BUILD =

PROFILE = mini
PROTOCOL =
TABLES =
NAMES =
GPUS = 1
CORES = $(if $(filter paper,$(PROFILE)),$(shell expr 5 '*' $(GPUS)),2)
WHERE = local
CONFIG =

EXTRAS = book,test,scale

# Modules are run by the interpreter of the environment: its scripts break where a path has spaces.
ifeq ($(strip $(VENV)),)
PY = "$(PYTHON)"
READY =
else
PY = "$(VENV)/bin/python"
READY = $(VENV)/.ready
endif

NOTEBOOKS = $(wildcard notebooks/*.ipynb)
BENCHMARKS = $(wildcard benchmarks/bench_*.py)

ifneq ($(strip $(BUILD)),)
GOALS = $(or $(MAKECMDGOALS),help)
COPIED = $(filter-out build, $(wildcard *)) .gitignore .ci .pre-commit-config.yaml

.PHONY: $(GOALS) copy

$(GOALS): copy
	@$(MAKE) -C "$(BUILD)" BUILD= $@

copy:
	@mkdir -p "$(BUILD)" && cp -R $(COPIED) "$(BUILD)/" && chmod -R u+w "$(BUILD)"

else
.PHONY: help setup book html notebooks tables models test test-oldest lint kills mutants fresh search coverage audit lab explore bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

ifeq ($(strip $(VENV)),)
setup:  ## install what is needed, into .venv (VENV= : into the active environment)
	$(install)
else
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	  f"Python 3.11 or later is needed, this is {v.major}.{v.minor}: make PYTHON=/path/to/another")'
	test -x "$(VENV)/bin/python" || "$(PYTHON)" -m venv "$(VENV)"
	$(install)
	@touch "$@"
endif

# With TORCH_INDEX first torch alone: that index need not have everything else.
define install
	$(if $(TORCH_INDEX),$(PY) -m pip install --no-deps -c constraints.txt --index-url "$(TORCH_INDEX)" torch torchvision)
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
endef

book: $(READY)  ## run all notebooks and build the HTML book
	$(PY) book/tools/run_notebooks.py --output-dir build/notebooks
	$(PY) book/tools/build_book.py --notebooks build/notebooks --output build/book

html: $(READY)  ## build the HTML book from the notebooks as committed, without running them
	$(PY) book/tools/build_book.py --output build/book

notebooks: $(READY)  ## run all notebooks and write their outputs into notebooks/
	$(PY) book/tools/run_notebooks.py --in-place

SNAKEMAKE = $(PY) -m snakemake -s workflow/Snakefile --workflow-profile workflow/profiles/$(WHERE) \
  $(if $(filter local,$(WHERE)),--cores $(CORES) --resources gpu=$(GPUS))
SWEEP = --config profile=$(PROFILE) tables="$(TABLES)" names="$(NAMES)" \
  protocol=$(PROTOCOL) $(CONFIG)

tables: $(READY)  ## make the run records that are missing, then fill the tables from all records
	@$(SNAKEMAKE) $(SWEEP); code=$$?; \
	  $(PY) -m pmms tables --profile $(PROFILE) $(if $(PROTOCOL),--protocol $(PROTOCOL)) && exit $$code

models: $(READY)  ## make trained weights with model cards, in models/
	$(SNAKEMAKE) models $(SWEEP)

test: $(READY)  ## package tests, then every notebook run again and compared with what it shows
	$(PY) -m pytest -n $(WORKERS) --dist loadfile
	$(if $(NOTEBOOKS),TQDM_DISABLE=1 $(PY) -m pytest --nbval --nbval-current-env \
	  --nbval-sanitize-with book/tools/nbval_sanitize.cfg --nbval-cell-timeout 1800 \
	  --timeout 1900 $(NOTEBOOKS),@echo "no notebook to test")

# Its own environment: the versions are those of pyproject.toml's lower bounds. Old libraries warn of
# newer ones; that is not ours to mend.
test-oldest:  ## package tests with the oldest versions allowed, in .venv-oldest
	test -x .venv-oldest/bin/python || "$(PYTHON)" -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet packaging
	.venv-oldest/bin/python tests/oldest_versions.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --disable-pip-version-check \
	  -c .venv-oldest/constraints.txt -e ".[$(EXTRAS)]"
	.venv-oldest/bin/python -m pytest -n $(WORKERS) --dist loadfile \
	  -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning

# Tests that use tests/searching.py, and the random episodes.
SEARCHING = $(addprefix tests/test_,$(addsuffix .py,properties_numbers properties_data mixture heads \
  prototypes seeding metrics episodes transforms random_episodes))

search: $(READY)  ## properties on 20 times as many examples, 10,000 random episodes
	PMMS_SEARCH=20 PMMS_EPISODES=10000 $(PY) -m pytest --timeout 7200 $(SEARCHING)

coverage: $(READY)  ## which lines of the package the tests run; 95 % at least
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -n $(WORKERS) --dist loadfile
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

audit: $(READY)  ## known vulnerabilities of the pinned versions; needs a connection to pypi.org
	$(PY) -m pip install --quiet pip-audit
	$(PY) -m pip_audit --strict --disable-pip --no-deps -r constraints.txt

kills: $(READY)  ## kill training, test, preparation and sweep at thirty moments each, and compare
	$(PY) tests/kill_points.py

mutants: $(READY)  ## change the core at one place at a time, and see whether the tests notice
	$(PY) -m pip install --quiet -c constraints.txt "mutmut==3.8.1"
	TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(PY) tests/mutants.py --max-children $(WORKERS)

fresh: $(READY)  ## make book and make test as a new user, from a source distribution; as root
	PYTHON=$(PY) tests/clean_machine.sh

lint: $(READY)  ## ruff on code and notebooks, types of the package, notebooks clean
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) book/tools/clean_notebooks.py --check

lab: $(READY)  ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

explore: $(READY)  ## open the explorer of chapter 07 as an app
	$(PY) book/tools/explore.py

bench: $(READY)  ## run the benchmarks
	@$(if $(BENCHMARKS),set -e; for file in $(BENCHMARKS); do echo "== $$file"; $(PY) "$$file"; done,\
	  echo "no benchmark: benchmarks/bench_*.py names no file")

clean:  ## remove what was built; the environment stays (rm -r .venv removes it)
	rm -rf build mutants .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -not -path "./.venv/*" -prune -exec rm -rf {} +
endif
