# Every target does its own set-up, on a bare machine too; nothing is done twice.

PYTHON  ?= python3
VENV    ?= .venv
BACKEND ?=
BROKER  ?=
SIZE    ?= wide

bin := $(VENV)/bin
pip := $(bin)/python -m pip install --quiet --disable-pip-version-check
# Half of their time most tests wait, so there are more processes than cores.
test_options := -n 4 --dist loadgroup --no-loadscope-reorder
# At full size there are figures to measure, which nothing else should disturb.
faults_options := $(if $(filter full,$(SIZE)),,-n 3 --dist loadgroup)
bench_options := $(if $(QUICK),--quick,--page docs/benchmarks.md --command 'make bench$(if $(BENCH), BENCH="$(BENCH)")')
demo_options := $(if $(BACKEND),--backend '$(BACKEND)') $(if $(BROKER),--broker '$(BROKER)')

.PHONY: help
help: ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: demo
demo: $(VENV)/.installed ## run the example; BACKEND=URL and BROKER=URL choose the services
	$(bin)/python examples/demo.py $(demo_options)

.PHONY: test
test: lint services .venv-django6/.installed ## everything CI runs: services, lint, types, layers and all tests
	$(bin)/python -m pytest $(test_options) $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.installed-dev ## check style, types and import layers
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/pyright
	$(bin)/lint-imports

.PHONY: mutants
mutants: $(VENV)/.installed-dev services ## show that the conformance suite finds each of many bugs
	$(bin)/python -m scripts.mutants $(MUTANTS)

.PHONY: faults
faults: $(VENV)/.installed-dev services ## kill, freeze, cut and flood everything, and count what is lost
	FAULTS_SIZE=$(SIZE) FAULTS_SEED=$(SEED) $(bin)/python -m pytest tests/faults $(faults_options) $(FAULTS)

.PHONY: celery
celery: $(VENV)/.installed-dev services ## run Celery's own integration tests on its Redis backend and on ours
	$(bin)/python -m scripts.celery_suite $(CELERY)

.PHONY: celerybackends
celerybackends: $(VENV)/.installed-dev services ## measure Celery's own result backends with our suite, and write the page
	$(bin)/python -m scripts.celery_backends run $(CELERY)

.PHONY: fuzz
fuzz: $(VENV)/.installed-fuzz ## give RUNS inputs to everything that decodes; 1 000 000 by default
	$(bin)/python -m tests.fuzz.run $(or $(RUNS),1000000) $(SEED)

.PHONY: bench
bench: $(VENV)/.installed-dev services .venv-peers/.installed ## measure upshot beside the drivers and its peers; QUICK=1 for a first look
	$(bin)/python -m benchmarks $(bench_options) $(BENCH)

.PHONY: instructions
instructions: $(VENV)/.installed-dev services ## count those of the hottest paths; UPDATE=1 keeps the figures
	$(bin)/python -m benchmarks.instructions $(if $(UPDATE),--update)

.PHONY: docs
docs: $(VENV)/.installed-dev ## build the site of the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --quiet

.PHONY: casts
casts: $(VENV)/.installed-dev ## record anew what the command line looks like, for the documentation
	$(bin)/python -m scripts.casts

.PHONY: services
services: $(VENV)/.made ## install the services that tests start privately; start none
	@PYTHON=$(bin)/python scripts/install-services.sh

.PHONY: clean
clean: ## remove what the other targets made, except system packages
	rm -rf $(VENV) .venv-peers .venv-django6 .services .upshot build dist site
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.made:
	@PYTHON='$(PYTHON)' scripts/make-venv.sh $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	$(pip) --editable '.[all]'
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	$(pip) --group fuzz
	@touch $@

# It brings everything that `demo` needs, so that stamp is fresh as well.
$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.made
	$(pip) --editable '.[all]' --group dev
	@touch $(VENV)/.installed $@

# The peers need other versions of drivers than upshot, and arq others than the rest.
.venv-peers/.installed: benchmarks/environments/peers.txt benchmarks/environments/arq.txt | $(VENV)/.made
	for name in peers arq; do \
	    PYTHON='$(PYTHON)' scripts/make-venv.sh .venv-peers/$$name && \
	    .venv-peers/$$name/bin/python -m pip install --quiet --disable-pip-version-check \
	        --requirement benchmarks/environments/$$name.txt || exit 1; \
	done
	@touch $@

# Django's own tasks came with Django 6, which needs a newer Python than upshot.
.venv-django6/.installed: pyproject.toml tests/contrib/django_tasks/environment.txt | $(VENV)/.made
	python=$$(PYTHON='$(PYTHON)' scripts/find-python.sh .venv-django6) && \
	    PYTHON=$$python scripts/make-venv.sh .venv-django6/env
	.venv-django6/env/bin/python -m pip install --quiet --disable-pip-version-check \
	    --editable '.[redis,postgresql,amqp,conformance]' \
	    --requirement tests/contrib/django_tasks/environment.txt
	@touch $@
