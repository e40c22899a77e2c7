# `make help` lists the targets. Most call the command `vantage` (tools/), which has a subcommand of the same name.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# auto: Vagrant if it is installed and need not emulate, else the system container.
VM ?= auto
PYTHON ?= python3
export ANSIBLE_FORCE_COLOR ?= $(if $(TERM),0)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
REQUIREMENTS := tools/requirements
LOCKED := $(REQUIREMENTS)/dev.txt app/requirements.txt app/tests/requirements.txt
VENV := .venv/.ready

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- The VM: VM=vagrant or VM=container chooses its kind ---
VM_TARGETS := up verify status report logs shell password down
up: ## Create a VM with everything on it, and verify it
verify: ## Send one request and find it as metric, log line and trace
status: ## Print one line per service
report: ## Write a page about the last minutes and hours to report/: make report ARGS="-e report_short=1m"
logs: ## Print the journal of one service: make logs S=storefront
shell: ## Open a shell on the VM
password: ## Print Grafana's admin password
down: ## Remove the VM and its data
$(VM_TARGETS): $(VENV)
	@vantage $@ --vm "$(VM)" $(S) $(ARGS)

traffic: $(VENV) ## Send visitors to the demo shop: make traffic ARGS="--seconds 300 --errors 0.2"
	@python app/examples/shop/shop/traffic.py --url http://127.0.0.1:8000 --warehouse http://127.0.0.1:8001 $(ARGS)

# --- Docker Compose, without a VM ---
COMPOSE_TARGETS := compose-up compose-verify compose-password compose-down
compose-up: ## Start docker-compose.yml on this machine, without a VM, and verify it
compose-verify: ## Send one request through docker-compose.yml's services and find it
compose-password: ## Print the admin password of docker-compose.yml's Grafana
compose-down: ## Stop and remove docker-compose.yml's containers; their data stays
$(COMPOSE_TARGETS): $(VENV)
	@vantage compose $(@:compose-%=%)

# --- Development ---
TARGETS := test lint unit render test-browser bench box
test: ## Run everything: lint, unit tests, and the whole path in a system container
lint: ## Check style and types
unit: ## Run the unit tests
render: ## Write every rendered file: READMEs' tables, dashboards, docker-compose.yml
test-browser: ## Check the dashboards in a real browser; ARGS=bench measures their queries
bench: ## Measure what the README promises; ARGS="--base DIR" compares with another checkout
box: ## Build a Vagrant box from Debian's packages
$(TARGETS): $(VENV)
	@vantage $@ $(ARGS)

images: $(VENV) ## Get every image: pulled, or made of published packages
	@vantage images get
samples: $(VENV) ## Write log lines and traces of the VM to docs/samples
	@vantage report --vm "$(VM)" -e report_dir=build/samples -e report_keep_data=true $(ARGS)
	@vantage samples --data build/samples/data.json.gz

# --- Tests on machines: KEEP=1 keeps the machine ---
MACHINE_TESTS := test-vm test-cloud-init test-systems
test-vm: ## Test a VM by Vagrant, emulated where KVM does not work: SUITE=bookworm
test-cloud-init: ## Test a Debian disk that provisions itself by cloud-init
test-systems: ## Test each supported system in a system container: SYSTEMS=debian13 FULL=1
$(MACHINE_TESTS): $(VENV)
	@pytest -sv -m long tests/machines/$(subst -,_,$@).py $(ARGS)

# --- The environment ---
$(VENV): $(LOCKED) tools/pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || PYTHONPATH=tools $(PYTHON) -m vantage_tools.vm.host_tools python
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned tools into .venv: some minutes, about 1 GB. A dot is a package."
	@.venv/bin/python -m pip install --disable-pip-version-check --no-input --require-hashes $(LOCKED:%=-r %) \
	  | while read -r line; do case "$$line" in Collecting*) printf . ;; Installing*) printf ' downloaded; installing …' ;; esac; done; echo
	@.venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet --no-index --no-deps --no-build-isolation --editable tools
	@touch $@

requirements: ## Pin the requirements to the newest versions
	@$(PYTHON) -m venv .venv-pin && .venv-pin/bin/pip install --quiet uv
	@cd $(REQUIREMENTS) && for name in dev ansible browser; do \
	  $(CURDIR)/.venv-pin/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url $$(test $$name = dev || echo --constraint dev.txt) $$name.in -o $$name.txt; done
	@# Ubuntu 22.04's python3.11 is a release candidate, which old versions of pip order below 3.11.
	@for file in $(REQUIREMENTS)/*.txt; do sed -i.old s/python_full_version/python_version/ $$file && rm $$file.old; done
	@rm -rf .venv-pin

clean: ## Remove the caches (images, boxes, toolchains) and the environment
	@rm -rf .venv "$${VANTAGE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/vantage}"

# --- Targets of earlier versions ---
compose docs dashboards:
	$(error `make $@` is now `make render`)
test-report:
	$(error `make $@` is now `.venv/bin/vantage $@`)
completion:
	$(error `make $@` is now `.venv/bin/vantage --install-completion`)
collection:
	$(error `make $@` is gone: set roles_path to the folder roles of a checkout (docs/adr/019-no-collection.md))

.PHONY: help $(VM_TARGETS) traffic $(COMPOSE_TARGETS) $(TARGETS) images samples $(MACHINE_TESTS) requirements clean \
  compose docs dashboards test-report completion collection
