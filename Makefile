# One command each for what a developer does. `make` alone lists them.

GO ?= go
FUZZTIME ?= 5m
# More flags for go test, such as -v or -run.
TESTFLAGS ?=
# Packages that are tested at once, beside two that are apart: many of them wait for processes, blocks and time.
PARALLEL ?= 4
# Those that take longest, which begin first.
LONGEST = ./test/e2e ./test/chaos ./paywall ./ledger/redis ./ledger/postgres ./test/refunds ./settlement/wallet ./settlement/facilitator ./ledger/sqlite ./test/key0 ./devnet
# How long things break, over which stores (sqlite, postgres, redis, all), and what decides who does what.
CHAOS_SECONDS ?= 120
CHAOS_STORE ?= all
CHAOS_SEED ?=
# The same of the refunds' chaos.
REFUNDS_SECONDS ?= 60
REFUNDS_STORE ?= all
REFUNDS_SEED ?=
# How long a soak lasts at most, and how many payments are enough.
SOAK_SECONDS ?= 3600
SOAK_PAYMENTS ?= 1000000
# Packages to lint; to benchmark, where given.
PKG ?= ./...
TAGS = interop
# The race detector, but for what it would find nothing in and takes several times as long under it: SQLite is C in the shape of Go, and the EVM an
# interpreter, each in the hands of one goroutine. Packages that synchronize goroutines must not be here: it would not see how.
UNRACED = modernc.org/sqlite/lib github.com/ethereum/go-ethereum/core/vm github.com/holiman/uint256
RACE = -race $(foreach package,$(UNRACED),-gcflags=$(package)=-race=false)
# Tests of whole processes and of other people's programs, which have nothing to find for it.
APART = ./test/crash ./test/operator ./test/bench ./test/interop ./test/dashboard ./test/doctor ./test/observe ./test/xcaddy ./test/service ./cmd/demo

# Developers' tools are pinned in a module of their own, so that nobody who imports ours inherits them.
TOOL = $(GO) tool -modfile=$(CURDIR)/tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help build demo test test-raced test-apart chaos refund-chaos soak interop-v1 setup lint fmt vuln fuzz bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/caddy: Caddy with this module in it, without cgo
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/caddy ./cmd/caddy

demo: ## a paid request from 402 to upstream on a local chain; KEEP=1 keeps it running
	CGO_ENABLED=0 KEEP=$(KEEP) $(GO) run -trimpath ./cmd/demo

test: setup ## every test, as CI runs it, with the race detector; lint vets
	@$(MAKE) --no-print-directory -j2 test-apart test-raced

test-raced: # those in which goroutines of ours meet, the longest first; none where they can't be listed
	@all=$$($(GO) list -tags '$(TAGS)' ./...) && apart=$$($(GO) list -tags '$(TAGS)' $(APART)) && set -x && \
	$(GO) test $(RACE) -vet=off -tags '$(TAGS)' -p $(PARALLEL) -timeout 15m $(TESTFLAGS) $(LONGEST) $$(echo "$$all" | grep -vxF "$$apart")

test-apart: # beside them, which wait for processes more than they work
	$(GO) test -vet=off -tags '$(TAGS)' -p 2 -timeout 15m $(TESTFLAGS) $(APART)

chaos: ## three Caddys under load while all that can break breaks; CHAOS_SECONDS=120 CHAOS_STORE=all CHAOS_SEED=
	CGO_ENABLED=0 CHAOS_SECONDS=$(CHAOS_SECONDS) CHAOS_STORE=$(CHAOS_STORE) CHAOS_SEED=$(CHAOS_SEED) \
		$(GO) test -count=1 -v -timeout 0 -run '^TestChaos$$' $(TESTFLAGS) ./test/chaos

refund-chaos: ## what must go back does, to the unit, while instances are killed; REFUNDS_SECONDS=60 REFUNDS_STORE=all REFUNDS_SEED=
	CGO_ENABLED=0 REFUNDS_SECONDS=$(REFUNDS_SECONDS) REFUNDS_STORE=$(REFUNDS_STORE) REFUNDS_SEED=$(REFUNDS_SEED) \
		$(GO) test -count=1 -v -timeout 0 -run '^TestChaos$$' $(TESTFLAGS) ./test/refunds

soak: ## a million payments in one run: none lost, none doubled, memory flat; SOAK_SECONDS=3600 SOAK_PAYMENTS=1000000 SOAK_JSON=
	$(GO) build -trimpath -o bin/bench ./test/bench
	@SOAK_SECONDS=$(SOAK_SECONDS) SOAK_PAYMENTS=$(SOAK_PAYMENTS) exec bin/bench soak

interop-v1: ## the stock client of x402 version 1 pays too; 800 MB of npm packages
	@.ci/setup test/interop/v1
	$(GO) test $(RACE) -vet=off -tags interop_v1 -timeout 15m $(TESTFLAGS) ./test/interop/v1

setup: ## make ready what the tests need: a C compiler, databases, promtool, Chromium, Node.js >= 20, npm packages
	@.ci/setup

lint: ## static analysis and formatting, and go.mod as go mod tidy would leave it
	$(GO) mod tidy -diff
	$(TOOL) golangci-lint run --build-tags '$(TAGS),interop_v1' $(PKG)

fmt: ## format the code as lint wants it
	$(TOOL) golangci-lint fmt $(PKG)

vuln: ## known vulnerabilities in what we use; needs the network
	$(GO) mod verify
	$(TOOL) govulncheck ./...

fuzz: ## run every fuzzer for FUZZTIME (5m) each
	@set -e; for dir in $$(grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$dir/*_test.go); do \
			echo "== $$dir $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

bench: ## us, bare Caddy and the reference server side by side (docs/benchmarks.md); PKG=./token: the benchmarks of one room
ifeq ($(origin PKG),file)
	@.ci/setup test/bench/peer
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./test/bench
	@exec bin/bench
else
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench . -benchmem -timeout 2h $(PKG)
endif

clean: ## remove what build made
	rm -rf bin
