# `make help` lists the targets. The two that matter: `make up` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# auto: Vagrant where it is installed and need not emulate, else the system container.
VM ?= auto
export VANTAGE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vantage
export ANSIBLE_FORCE_COLOR ?= $(if $(TERM),0)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= python3
VENV := .venv/.ready

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  The tab key completes these after: source <(make --silent completion)"

.PHONY: collection
collection: $(VENV) ## Build the roles and playbooks as a collection, in build/
	@.venv/bin/python scripts/collection

.PHONY: completion
completion: ## Print what lets bash complete make's targets
	@cat scripts/completion.bash

$(VENV): requirements/dev.txt app/requirements.txt app/tests/requirements.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || scripts/host-tools python
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing the tools that requirements/dev.txt and app/requirements.txt pin: some minutes, about 1 GB. A dot is a package."
	@.venv/bin/pip install --disable-pip-version-check --no-input --require-hashes -r requirements/dev.txt -r app/requirements.txt -r app/tests/requirements.txt \
	  | while read -r line; do case "$$line" in Collecting*) printf . ;; Installing*) printf ' all there, installing …' ;; esac; done; echo
	@touch $@

.PHONY: up
up: $(VENV) ## Bring up a VM with everything on it, and verify it
	@scripts/vm up "$(VM)"

.PHONY: verify
verify: $(VENV) ## Send one request and find it as metric, log line and trace
	@scripts/vm verify "$(VM)"

.PHONY: status
status: $(VENV) ## One line per service
	@scripts/vm status "$(VM)"

.PHONY: traffic
traffic: $(VENV) ## Send visitors to the demo shop: make traffic ARGS="--seconds 300 --errors 0.2"
	@.venv/bin/python app/examples/shop/shop/traffic.py --url http://127.0.0.1:8000 --warehouse http://127.0.0.1:8001 $(ARGS)

.PHONY: report
report: $(VENV) ## What happened in the last minutes and hours, as a page in report/: make report ARGS="-e report_short=1m"
	@scripts/vm report "$(VM)" "$(ARGS)"

.PHONY: samples
samples: $(VENV) ## Log lines and traces of the VM as files in docs/samples
	@scripts/vm report "$(VM)" "-e report_dir=build/samples -e report_keep_data=true $(ARGS)"
	@.venv/bin/python -m vantage_report.samples --data build/samples/data.json.gz --out docs/samples

.PHONY: logs
logs: $(VENV) ## The journal of one service: make logs S=storefront
	@scripts/vm logs "$(VM)" "$(S)"

.PHONY: shell
shell: $(VENV) ## A shell on the VM
	@scripts/vm shell "$(VM)"

.PHONY: password
password: $(VENV) ## Print Grafana's admin password
	@scripts/vm password "$(VM)"

.PHONY: down
down: $(VENV) ## Remove the VM and its data
	@scripts/vm down "$(VM)"

.PHONY: images
images: $(VENV) ## Get every image: from a registry, or made of published packages
	@images/vantage-images get

.PHONY: compose
compose: $(VENV) ## Write docker-compose.yml from the roles
	@.venv/bin/python -m compose

.PHONY: compose-up
compose-up: $(VENV) ## Start docker-compose.yml on this machine, without a VM, and verify it
	@scripts/compose up

.PHONY: compose-verify
compose-verify: $(VENV) ## Send one request through docker-compose.yml's services and find it again
	@scripts/compose verify

.PHONY: compose-password
compose-password: ## Print the admin password of docker-compose.yml's Grafana
	@scripts/compose password

.PHONY: compose-down
compose-down: $(VENV) ## Stop and remove docker-compose.yml's containers; their data stays
	@scripts/compose down

.PHONY: test
test: $(VENV) ## Everything: lint, unit tests, and the whole path in a system container
	@scripts/test

.PHONY: test-report
test-report: $(VENV) ## Whether the report names each of eight faults, on a machine of its own (20 minutes)
	@scripts/test-report

.PHONY: lint
lint: $(VENV) ## Style and types
	@scripts/lint

.PHONY: unit
unit: $(VENV) ## Unit tests only
	@.venv/bin/pytest -q tests/unit
	@.venv/bin/pytest -q app/tests

.PHONY: test-systems
test-systems: $(VENV) ## The whole path on every supported system whose packages can be had
	@scripts/test-systems $(SYSTEMS)

.PHONY: test-browser
test-browser: $(VENV) ## Look at the dashboards in a real browser: panels, clicks; ARGS=bench measures their queries
	@scripts/test-browser $(ARGS)

.PHONY: bench
bench: $(VENV) ## Measure what the README promises, each beside its plain counterpart
	@scripts/bench

.PHONY: box
box: $(VENV) ## Make a Vagrant box of Debian's packages
	@scripts/box

.PHONY: test-vm
test-vm: $(VENV) ## Provision and verify a true VM by `vagrant up`, emulated where there is no KVM
	@scripts/test-vm

.PHONY: test-cloud-init
test-cloud-init: $(VENV) ## Let a plain Debian disk provision itself by cloud-init on a true VM
	@scripts/test-cloud-init

.PHONY: docs
docs: $(VENV) ## Write the tables of variables into the READMEs
	@.venv/bin/python scripts/docs

.PHONY: dashboards
dashboards: $(VENV) ## Write Grafana's dashboards from their Python sources
	@.venv/bin/python -m dashboards

.PHONY: requirements
requirements: ## Pin requirements again
	@$(PYTHON) -m venv .venv-pin && .venv-pin/bin/pip install --quiet uv
	@for name in dev ansible; do \
	  .venv-pin/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url "requirements/$$name.in" -o "requirements/$$name.txt"; done
	@.venv-pin/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --constraint requirements/dev.txt requirements/browser.in -o requirements/browser.txt
	@# Ubuntu 22.04's python3.11 is a release candidate, which pip takes for no version below 3.14.
	@sed -i.old s/python_full_version/python_version/ requirements/ansible.txt && rm requirements/ansible.txt.old
	@rm -rf .venv-pin

.PHONY: clean
clean: ## Remove the caches (images, boxes, toolchains) and the tools' environment
	@images/vantage-images clean
	@rm -rf .venv "$(VANTAGE_CACHE)"
