# BIZRA: `make help` lists what there is. `make demo` and `make test` do all the set-up they need.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export BIZRA_CACHE ?= $(HOME)/.cache/bizra
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export BIZRA_IMAGE ?= localhost/bizra:dev
BIN := $(CARGO_TARGET_DIR)/release
SEEDS ?= 1000

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install the system packages that builds and tests need (Debian, as root; quiet when all is there)
	@tests/setup.sh

.PHONY: build
build: setup ## Build operator and node
	@tests/step.sh build cargo build --release --locked --workspace --bin bizra-operator --bin bizra-node

.PHONY: demo
demo: ## Run a four-validator network on a real Kubernetes and finalise 10,000 transactions
	@tests/e2e/demo.sh

.PHONY: demo-down
demo-down: cluster-down ## Remove the demo and the cluster, and check that nothing is left

.PHONY: test
test: ## Run every test; ends with the number passed and failed
	@tests/run.sh

.PHONY: test-unit
test-unit: setup ## Run the Rust tests; of Kubernetes only the API server is started
	@BIZRA_CLUSTER_BIN=$$(tests/e2e/cluster/build.sh) cargo test --release --locked --workspace --exclude bizra-e2e

.PHONY: test-e2e
test-e2e: ## Run the end-to-end tests on the cluster that fit into CI
	@tests/e2e/test.sh

.PHONY: e2e
e2e: ## Run every end-to-end scene under load; fails if no block is finalised for 3 s in any of them
	@tests/e2e/test.sh all

.PHONY: e2e-long
e2e-long: ## As e2e, with faults that last five minutes
	@BIZRA_E2E_LONG=1 tests/e2e/test.sh all

.PHONY: e2e-repeat
e2e-repeat: ## Break one validator after the other N=10 times in each way: table of fault to voting again; JSON in target/e2e/
	@tests/e2e/test.sh repeat --repeats $(or $(N),10) --out target/e2e/repeat.json

.PHONY: audit-rbac
audit-rbac: ## Run every end-to-end scene and compare the operator's rights with those it used; JSON in target/audit/
	@tests/e2e/audit.sh all

.PHONY: sim
sim: setup ## Simulate SEEDS=1000 networks under faults, or SECONDS=n long; SEED=n replays one with its trace
	@tests/step.sh build-simulator cargo build --release --locked --workspace --bin bizra-sim
	@$(BIN)/bizra-sim $(if $(SEED),--seed $(SEED) --trace,$(if $(SECONDS),--seconds $(SECONDS),--seeds $(SEEDS)))

.PHONY: sim-determinism
sim-determinism: setup ## Simulate SEEDS=1000 networks twice, on other numbers of threads; every hash must be the same
	@tests/step.sh build-simulator cargo build --release --locked --workspace --bin bizra-sim
	@$(BIN)/bizra-sim determinism --seeds $(SEEDS)

.PHONY: sim-planted
sim-planted: setup ## Plant bugs into the core one by one; the simulator must find each within 60 s
	@tests/step.sh build-planted cargo build --release --locked --workspace --features bizra-simulator/planted --bin bizra-planted
	@$(BIN)/bizra-planted

.PHONY: mutants
mutants: setup ## Change core and signing record in one place at a time; their quick tests must notice (an hour and more); FILTER=regex takes some
	@tests/mutants.sh $(if $(FILTER),'$(FILTER)')

.PHONY: fuzz
fuzz: setup ## Fuzz every decoder for SECONDS=60 each; TARGET=name fuzzes one
	@SECONDS_EACH=$(or $(SECONDS),60) TARGET=$(TARGET) tests/fuzz/fuzz.sh

.PHONY: twins
twins: setup ## Split four validators, one with a twin, in every way for four views; then a sample of seven
	@tests/step.sh build-simulator cargo build --release --locked --workspace --bin bizra-sim
	@$(BIN)/bizra-sim twins
	@$(BIN)/bizra-sim twins --validators 7 --twins 2 --sample 20000

.PHONY: model
model: setup ## Check the core in every order of messages and timeouts within VIEWS=2, CRASHES=0, at most SECONDS=600
	@tests/step.sh build-simulator cargo build --release --locked --workspace --bin bizra-sim
	@$(BIN)/bizra-sim model --views $(or $(VIEWS),2) --crashes $(or $(CRASHES),0) --seconds $(or $(SECONDS),600)

.PHONY: model-operator
model-operator: setup ## Check the operator's plans in every order of crashes, stale reads, faults and edits within wider bounds, each for at most SECONDS=120
	@SECONDS_EACH=$(or $(SECONDS),120) cargo test --release --locked --workspace --lib controllers::model -- --ignored --nocapture

.PHONY: crash-campaign
crash-campaign: setup ## Crash, cut off and mislead the operator at every step on a real API server; goes on where it stopped; LIMIT=n ONLY=regex take some; results in target/campaign/
	@tests/step.sh build-campaign cargo build --release --locked --workspace --bin bizra-crash-campaign
	@BIZRA_CLUSTER_BIN=$$(tests/e2e/cluster/build.sh) $(BIN)/bizra-crash-campaign $(if $(LIMIT),--limit $(LIMIT)) $(if $(ONLY),--only '$(ONLY)')

.PHONY: planted-copy
planted-copy: setup ## A copied key that does not believe its peers: the watching nodes must see conflicting signatures
	@tests/step.sh planted-copy cargo test --release --locked -p bizra-node --features planted --target-dir $(CARGO_TARGET_DIR)/planted --test processes copied

.PHONY: planted-operator
planted-operator: setup ## Plant bugs into the operator one by one; the campaign must find each, and find nothing without them
	@tests/step.sh build-planted-operator cargo build --release --locked --workspace --features bizra-campaign/planted --bin bizra-planted-operator
	@BIZRA_CLUSTER_BIN=$$(tests/e2e/cluster/build.sh) $(BIN)/bizra-planted-operator

.PHONY: bench-scale
bench-scale: setup ## Simulate 4 to 100 validators over five regions: finality and bytes; JSON in target/bench/
	@tests/step.sh build-simulator cargo build --release --locked --workspace --bin bizra-sim
	@$(BIN)/bizra-sim scale --out target/bench/scale.json

.PHONY: bench
bench: build ## Measure four local validators, signed and opaque, at 10,000 a second and up to saturation (ten minutes); JSON in target/bench/
	@tests/step.sh build-bench cargo build --release --locked --workspace --bin bizra-bench
	@$(BIN)/bizra-bench --node $(BIN)/bizra-node

.PHONY: faults-node
faults-node: build ## Kill real validators KILLS=300 times, cut their power CUTS=100 times a file system, flip FLIPS=240 bytes (root; half an hour); JSON in target/faults/
	@tests/step.sh build-faults cargo build --release --locked --workspace --bin bizra-faults
	@$(BIN)/bizra-faults run --node $(BIN)/bizra-node --kills $(or $(KILLS),300) --cuts $(or $(CUTS),100) --flips $(or $(FLIPS),240) \
		$(if $(SEED),--seed $(SEED))

.PHONY: soak
soak: build ## Run a devnet for MINUTES=30 at RATE=3000 transfers a second: memory, disk, heights; JSON in target/soak/
	@tests/step.sh build-faults cargo build --release --locked --workspace --bin bizra-faults
	@$(BIN)/bizra-faults soak --node $(BIN)/bizra-node --minutes $(or $(MINUTES),30) --rate $(or $(RATE),3000)

.PHONY: bench-peer
bench-peer: build ## Measure ours next to CometBFT, both stock and tuned (15 minutes; QUICK=1: 4); JSON in target/bench/peer.json
	@tests/step.sh build-bench cargo build --release --locked --workspace --bin bizra-bench
	@tests/step.sh build-peer tests/peer/build.sh
	@$(BIN)/bizra-bench --node $(BIN)/bizra-node peer --programs "$$(tests/peer/build.sh)" $(if $(QUICK),--quick)

.PHONY: bench-operator
bench-operator: setup ## Measure the operator with 1,000 and 5,000 nodes beside a Go operator of the same shape (half an hour; QUICK=1: 200 nodes, 4 minutes); JSON in target/bench/operator.json
	@tests/step.sh build-bench-operator cargo build --release --locked --workspace --bin bizra-operator --bin bizra-bench-operator
	@tests/step.sh build-bench-peer tests/bench-operator/peer/build.sh
	@BIZRA_CLUSTER_BIN=$$(tests/e2e/cluster/build.sh) $(BIN)/bizra-bench-operator --operator $(BIN)/bizra-operator \
		--peer "$$(tests/bench-operator/peer/build.sh)" $(if $(QUICK),--quick)

.PHONY: mutate-crs
mutate-crs: setup ## Edit every field of every kind, TRANSITIONS=1000 times, on a real API server: ready, refused or explained, and back; SEED=n replays one chain; JSON in target/mutate/
	@tests/step.sh build-mutate-crs cargo build --release --locked --workspace --bin bizra-mutate-crs
	@BIZRA_CLUSTER_BIN=$$(tests/e2e/cluster/build.sh) $(BIN)/bizra-mutate-crs --transitions $(or $(TRANSITIONS),1000) $(if $(SEED),--seed $(SEED))

.PHONY: cluster-up
cluster-up: ## Start the embedded five-node Kubernetes (nothing to do with KUBECONFIG set)
	@tests/e2e/cluster.sh up

.PHONY: cluster-down
cluster-down: ## Stop the embedded Kubernetes and remove everything it made
	@tests/e2e/cluster.sh down

.PHONY: cluster-status
cluster-status: ## Show the state of the embedded Kubernetes
	@tests/e2e/cluster.sh status

.PHONY: image
image: build ## Make the container image and load it into every node of the embedded Kubernetes
	@tests/e2e/cluster.sh image

.PHONY: generate
generate: setup ## Write all generated files: CRDs in crds/ and in the chart
	@cargo build --quiet --release --locked --workspace --bin bizra-operator && $(BIN)/bizra-operator crds --out crds

.PHONY: fmt
fmt: ## Format the code
	@cargo fmt --all
	@gofmt -w tests/e2e/cluster tests/peer tests/bench-operator/peer

.PHONY: lint
lint: setup ## Check format, lints and licences
	@tests/lint.sh

.PHONY: clean
clean: ## Remove build products, but not the cache
	@rm -rf target
