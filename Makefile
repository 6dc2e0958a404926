# What a user types. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEVICE ?=
BUNDLE ?= runs/demo/bundle
KILLS ?= 500
CASES ?= 2000
DELTAS ?= 600
FAULTS ?= 1200
FUZZ ?= 1000000
SEED ?= 1
MVN := mvn --quiet --batch-mode -Dstyle.color=never
HARNESS := android_app/target/desktop/jars/harness.jar

.DEFAULT_GOAL := help
.PHONY: help setup spark demo deploy apk test bench stress lint clean lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed $(HARNESS) ## Install everything the project needs, into .venv and android_app/target

$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) scripts/check_tools.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The harness and, under it, Android's ExecuTorch for a desktop JVM.
$(HARNESS): $(VENV)/.installed android_app/pom.xml $(wildcard android_app/harness/* android_app/runtime/*)
	$(BIN)/python android_app/runtime/build.py
	cd android_app && $(MVN) package -Dmaven.test.skip=true
	@touch $@

demo: setup ## Train, export, and learn on a device, end to end on real data (under a minute)
	$(BIN)/sparserec demo --yes $(if $(DEVICE),--device $(DEVICE))

deploy: setup ## Install the app and push BUNDLE (runs/demo/bundle) to the phone, or the virtual device
	$(BIN)/sparserec deploy $(BUNDLE) --build-app $(if $(APK),--apk $(APK)) $(if $(DEVICE),--device $(DEVICE))

spark: setup ## Install PySpark too, for sparserec spark and its tests (docs/scale.md)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints-spark.txt

apk: setup ## Build, sign and verify the Android app (ABI=, RUNTIME=, RELEASE=1: docs/android.md)
	$(BIN)/python android_app/apk/build.py $(if $(ABI),--abi $(ABI)) \
	  $(if $(RUNTIME),--runtime $(RUNTIME)) $(if $(RELEASE),--release)

test: setup ## Run all tests, Python's and Kotlin's (with Kotlin's style)
	cd android_app && $(MVN) verify
	@if command -v aapt2 >/dev/null; then cd android_app/app && $(MVN) verify; \
	else echo "the app's tests are skipped: aapt2 is missing (Debian: apt install aapt)"; fi
	$(BIN)/python -m pytest -n auto --maxprocesses 4

stress: setup ## Kill, corrupt, misbehave, fuzz (KILLS= CASES= DELTAS= FAULTS= FUZZ= SEED=: docs/stress.md)
	$(BIN)/python -m tests.stress --kills $(KILLS) --cases $(CASES) --deltas $(DELTAS) --faults $(FAULTS) \
	  --fuzz $(FUZZ) --seed $(SEED)

bench: setup ## Measure steps and loops beside their peers (runs/bench, docs/performance.md)
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.training --recall 0.14

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=android_app/apk $(BIN)/mypy android_app/apk

COMPILE := uv pip compile pyproject.toml --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --quiet
lock: ## Pin every dependency again, with hashes (needs uv)
	$(COMPILE) --extra dev -o constraints.txt
	$(COMPILE) --extra spark -c constraints.txt | awk 'NR == FNR { have[$$1]; next } \
	  /^[a-z0-9]/ { more = !($$1 in have) } more' constraints.txt - > constraints-spark.txt

clean: ## Remove what was built, and nothing that was downloaded or trained
	rm -rf $(addprefix android_app/target/,desktop desktop-arm64 harness apk)
