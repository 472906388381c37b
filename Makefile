# `make` lists the targets. Each target does its own set-up; nothing has to be run before it.

PYTHON ?= python3
HOST   ?= 127.0.0.1
PORT   ?= 8501
PIP_ARGS    ?=
PYTEST_ARGS ?=

VENV := .venv
PY   := $(VENV)/bin/python
CLOUD := .venv-cloud
CLOUD_PY := $(CLOUD)/bin/python
PAIR := data/nla/smollm2-135m-L20

# A stamp is named after the checksum of the pins it stands for: change a pin and it is missing.
checksum = $(shell cat $(1) | cksum | cut -d' ' -f1)
APP_STAMP := $(VENV)/.app-$(call checksum,requirements.txt)
CLOUD_STAMP := $(CLOUD)/.cloud-$(call checksum,requirements-cloud-dev.txt)
DEV_STAMP := $(VENV)/.dev-$(call checksum,requirements.txt requirements-dev.txt)

CHROMIUM := $(shell command -v chromium || command -v chromium-browser)

.DEFAULT_GOAL := help
.PHONY: help app test check format demo verify screenshots bench bench-check numbers model clean clean-venv

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "; print "NLA Explorer. Targets:\n"} \
	  /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 picks the interpreter for a new .venv, PORT=8600 the port of the app,"
	@echo "  PIP_ARGS=... is handed to pip, PYTEST_ARGS='-k links' to pytest."

app: $(APP_STAMP) ## Serve the explorer on this machine (the first start sets everything up)
	@$(PY) -m nla_core.models.checkpoints fetch >/dev/null || \
	  echo "The demo can be browsed all the same; your own prompts need the model." >&2
	$(PY) -m streamlit run app.py --server.address $(HOST) --server.port $(PORT)

test: $(DEV_STAMP) $(CLOUD_STAMP) model ## Run every test that this machine can run
ifeq ($(CHROMIUM),)
	@echo "No Chromium found: the browser tests will be skipped. On Debian or Ubuntu this installs it:"
	@echo "  sudo apt-get install -y chromium"
	@echo "Elsewhere put a program called chromium on the PATH."
endif
ifeq ($(PYTEST_ARGS),)
	$(PY) -m pytest --ignore=tests/stores
	$(CLOUD_PY) -m pytest tests/stores
else
	$(PY) -m pytest $(PYTEST_ARGS)
endif

check: $(DEV_STAMP) ## Lint, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(DEV_STAMP) ## Apply the formatter and the safe fixes
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

DEMO_PROMPTS := $(sort $(wildcard data/prompts/*.jsonl))

demo: $(APP_STAMP) ## Recompute data/demo from data/prompts (long on a CPU; resumes when stopped)
	$(PY) -m precompute run --nla $(PAIR) --corpus $(DEMO_PROMPTS) --out data/demo \
	  --max-new-tokens 16 --explanation-tokens 48 --batch-size 128
	$(PY) -m precompute compare data/demo

verify: $(APP_STAMP) ## Check every hash, count and join of data/demo
	$(PY) -m precompute verify data/demo

screenshots: $(DEV_STAMP) ## Take the pictures of the README again (needs Chromium)
	$(PY) scripts/screenshots.py

numbers: $(APP_STAMP) ## Quote eval.json of the pairs in the documents and reports
	$(PY) scripts/quote_eval.py

BENCH_ARGS ?=

bench: $(APP_STAMP) ## Run the benchmarks and write docs/performance.md (half an hour on two cores)
	$(PY) -m benchmarks $(BENCH_ARGS)

bench-check: $(APP_STAMP) ## Fail where a ratio is worse than its record by more than a tenth
	$(PY) -m benchmarks --check $(BENCH_ARGS)

model: $(APP_STAMP) ## Fetch the demo model into the cache (100 MB, once)
	@$(PY) -m nla_core.models.checkpoints fetch >/dev/null

clean: ## Remove what is derived: caches, test leftovers, built databases
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	find data \( -name '*.duckdb' -o -name '*.duckdb.wal' \) -exec rm -f {} +

clean-venv: clean ## The same, and the virtual environments
	rm -rf $(VENV) $(CLOUD)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than 3.11. Name another one: make PYTHON=python3.12 app" >&2; \
	  exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; \
	  exit 2; }

$(APP_STAMP): | $(PY)
	$(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -r requirements.txt
	@rm -f $(VENV)/.app-* && touch $@

$(DEV_STAMP): $(APP_STAMP)
	$(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -r requirements-dev.txt
	@rm -f $(VENV)/.dev-* && touch $@

# Its own packages first, those of .venv behind them: nothing there changes.
$(CLOUD_STAMP): $(DEV_STAMP) requirements-cloud-dev.txt
	@rm -rf $(CLOUD) && $(PY) -m venv $(CLOUD)
	$(CLOUD_PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -r requirements-cloud-dev.txt
	@$(PY) -c 'import site; print(site.getsitepackages()[0])' > \
	  "$$($(CLOUD_PY) -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	@touch $@
