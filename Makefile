# make          check, then the default tests
# make serve    set up, fetch the default model, serve it on 127.0.0.1:8000 (ARGS='--port 8001')
# make test     set up, check, all three tiers (default, e2e, model), deploy-check, sdk-matrix and client-matrix
# make sdk-matrix   each major of the openai SDK, in a virtual environment of its own
# make client-matrix   LangChain, litellm and others, and the openai package on Node where there is npm
# make deploy-check   the files of deploy/ in Prometheus, nginx, Caddy, systemd and others
# make image-check    builds the Dockerfile's image with buildah, as root, and tries it (BASE=image)
# make bench    throughput, latency and Python's share of a step (ARGS='--requests 16')
# make compare  against llama-server, in turn (PEER_BUILD=script ARGS='--cases chat-8,intrusion')
# make compare-tools  40 small tool tasks, here and on llama-server (ARGS='--model qwen.gguf')
# make faults   crashes, overload, hostile clients: README's table of what was survived (ARGS=crashes)
# make soak     MINUTES=20 of mixed requests and faults on the echo engine, or on MODEL=file.gguf
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := smollm2-135m-instruct
# Builds llama-server from the same llama.cpp and prints the folder of its binaries.
PEER_BUILD ?= ../shared/peer/build-llama-server
# The last of each major of the openai SDK that people have.
SDKS := 1.109.1 2.20.0 3.54.0
# What is installed for each is pinned in its folder of tests/clients.
CLIENTS := openai_2 openai_3
NODE := tests/clients/node/node_modules/.installed
ARGS ?=

.PHONY: default serve test unit e2e deploy-check image-check model-test sdk-matrix client-matrix bench compare compare-tools faults soak check fix clean
.NOTPARALLEL:

default: check unit

# Newer than pyproject.toml: the installation is complete and current.
$(VENV)/.installed: pyproject.toml
	@.ci/venv $(VENV) $(PYTHON)
	@touch $@

serve: $(VENV)/.installed
	@exec $(BIN)/ingle serve $(ARGS)

test: check unit e2e deploy-check sdk-matrix client-matrix model-test

unit: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(ARGS)

e2e: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m e2e $(ARGS)

model-test: $(VENV)/.installed
	$(BIN)/ingle pull $(MODEL)
	$(BIN)/python models/make_minilm.py
	$(BIN)/python -m pytest -q -m model $(ARGS)

deploy-check: $(VENV)/.installed
	$(BIN)/python -c 'import kubernetes_validate, yamllint' 2>/dev/null || $(BIN)/python -m pip install -q -e '.[deploy]'
	$(BIN)/python -m pytest -q -m deploy $(ARGS)

image-check: $(VENV)/.installed
	$(BIN)/python -m tests.deploy.image_check

sdk-matrix: $(VENV)/.installed $(SDKS:%=$(VENV)-sdk-%/.installed)
	$(BIN)/python -m tests.clients.run $(SDKS:%=sdk=$(VENV)-sdk-%)

$(VENV)-sdk-%/.installed:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install -q --disable-pip-version-check openai==$* pydantic pytest
	@touch $@

client-matrix: $(VENV)/.installed $(if $(shell command -v npm),$(NODE)) $(CLIENTS:%=$(VENV)-%/.installed)
	$(BIN)/python -m tests.clients.run node $(foreach group,$(CLIENTS),$(group)=$(VENV)-$(group))

$(VENV)-openai_%/.installed: tests/clients/openai_%/requirements.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install -q --no-compile --disable-pip-version-check -r $<
	@touch $@

$(NODE): tests/clients/node/package.json
	npm --prefix $(<D) install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

bench: $(VENV)/.installed
	$(BIN)/ingle pull $(MODEL)
	$(BIN)/python -m tests.bench $(ARGS)

compare: $(VENV)/.installed
	$(BIN)/ingle pull $(MODEL)
	$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/python -m pip install -q -e '.[bench]'
	$(BIN)/python -m tests.bench.compare --peer-build $(PEER_BUILD) $(ARGS)

faults: $(VENV)/.installed
	$(BIN)/python -m tests.faults $(ARGS)

compare-tools: $(VENV)/.installed
	$(BIN)/python -m tests.bench.tools --peer-build $(PEER_BUILD) $(ARGS)

soak: $(VENV)/.installed
	$(BIN)/python -m tests.faults.soak

check: $(VENV)/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(VENV)-* tests/clients/node/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find server tests -name __pycache__ -type d -prune -exec rm -rf {} +
