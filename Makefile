# Two commands do all the set-up: `make demo` and `make test`. Both need root on Debian 12.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

# What the lab and the tests run for real. On a machine that has them, nothing is installed. php-cgi stands before the
# frontend, which else brings Apache.
PACKAGES := python3-venv docker.io docker-registry openssh-server openssh-client iproute2 iptables busybox-static \
            dnsmasq-base bind9 bind9-dnsutils haproxy \
            nginx libnginx-mod-stream keepalived curl procps strace sudo tzdata util-linux prometheus prometheus-node-exporter \
            postgresql php-cgi zabbix-frontend-php zabbix-server-pgsql zabbix-agent

.PHONY: help
help:
	@echo 'make demo        bring up a lab of real hosts and run the main job on it'
	@echo 'make demo-down   take the lab away again, whole'
	@echo 'make test        format, lint, types, layers, then every test (needs root)'
	@echo 'make check       format, lint, types, layers alone'
	@echo 'make bench       measure, beside the physical limit (K4T_FULL=1: and publish 1,000 times among faults)'
	@echo 'make docs        write the generated pages of docs/'
	@echo 'make lock        resolve the dependencies anew (needs uv)'

.PHONY: demo demo-down
demo: $(VENV)/installed
	@$(BIN)/python -m tests.lab.demo up

demo-down: $(VENV)/installed
	@$(BIN)/python -m tests.lab.demo down

# Three at a time, also on two cores: most of the time is waiting, for health, TTLs and hosts that were cut off.
.PHONY: test check
test: check
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/vermin --quiet --no-tips --target=3.8- --violations k4t/registrar

.PHONY: bench
bench: $(VENV)/installed
	$(BIN)/python -m tests.bench
	$(BIN)/python -m pytest -q -s tests/publication/test_pairs.py tests/publication/test_three_clusters.py

.PHONY: docs
docs: $(VENV)/installed
	$(BIN)/python -m k4t.tree.reference > docs/tree.md
	$(BIN)/python -m tests.docs.commands > docs/commands.md

.PHONY: lock
lock:
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    pyproject.toml --output-file requirements/run.txt
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    --extra dev pyproject.toml --output-file requirements/dev.txt

# --- set-up -------------------------------------------------------------------------------------------------

# apt's own user needs a /tmp that everybody may write, which not every machine has.
# The tests start their own servers: Debian's (on ports 53 and 80) are not to be started by their installation.
POLICY := /usr/sbin/policy-rc.d

.PHONY: system
system:
	@missing=; for package in $(PACKAGES); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	    echo "installing Debian packages:$$missing"; \
	    if [ ! -e $(POLICY) ]; then printf '#!/bin/sh\nexit 101\n' >$(POLICY) && chmod +x $(POLICY) && trap 'rm -f $(POLICY)' EXIT; fi; \
	    [ "$$(stat -c %a /tmp)" = 1777 ] || alone="-o APT::Sandbox::User=root"; \
	    apt-get $$alone update -qq && DEBIAN_FRONTEND=noninteractive apt-get $$alone install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

$(VENV)/installed: requirements/dev.txt pyproject.toml | system
	@echo "installing Python packages into $(VENV) (requirements/dev.txt, by hash)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "k4t needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
