# Targets are plain go; `make help` lists them.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN     := bin
FUZZTIME ?= 30s
SOAK     ?= 10m

export CGO_ENABLED ?= 0
# runtime/secret erases what decryption leaves behind, where the toolchain has it.
export GOEXPERIMENT ?= $(shell GOEXPERIMENT=runtimesecret $(GO) version >/dev/null 2>&1 && echo runtimesecret)
LDFLAGS := -s -w -buildid= -X github.com/hsagent/hsagentd/wire.Version=$(VERSION)
GOBUILD := $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/hsagentd and bin/hsctl
	$(GOBUILD) -o $(BIN)/ ./cmd/hsagentd ./cmd/hsctl

.PHONY: demo
demo: build ## make one call against a sandbox HubSpot and show the records that it left
	$(BIN)/hsagentd demo -- sh -c '$(BIN)/hsctl call acme-corp GET /crm/v3/objects/contacts --query limit=3 && echo && \
	  echo "# the records of this call: its intent, written before it left, and its outcome" && \
	  $(BIN)/hsctl audit query --slug acme-corp --output json | grep -F contacts | tail -n 2'

# The race detector needs a C compiler; without one the tests run all the same.
# Badger's compressor, which only computes, goes without it: that saves a seventh.
RACE := $(shell command -v cc >/dev/null 2>&1 && echo "-race -gcflags=github.com/klauspost/compress/...=-race=false")

.PHONY: test
test: ## run all tests, with the race detector where there is a C compiler
	@test -n "$(RACE)" || echo "NOTE: no C compiler (cc) found: the tests run WITHOUT the race detector" >&2
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 30m ./...

.PHONY: lint
lint: ## run the linters (golangci-lint)
	golangci-lint run

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@set -e; for f in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
	  for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$f); do \
	    echo "== $$(dirname $$f) $$t"; $(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f); done; done

.PHONY: bench
bench: ## run the Go benchmarks (BENCHFLAGS='-count 10' for benchstat)
	$(GO) test -run '^$$' -bench . -benchmem $(BENCHFLAGS) ./...

.PHONY: bench-peers
bench-peers: build ## measure hsagentd beside nginx, haproxy, ReverseProxy and none (BENCHFLAGS='-json FILE')
	$(GO) build -o $(BIN)/bench ./packaging/bench
	$(BIN)/bench peers $(BENCHFLAGS)

.PHONY: bench-cli
bench-cli: build ## measure hsctl, starts, reloads, queries and memory (BENCHFLAGS='-logs DIR' of make fill)
	$(GO) build -o $(BIN)/bench ./packaging/bench
	$(BIN)/bench cli $(BENCHFLAGS)

.PHONY: fill
fill: ## write a log of N made-up records to DIR, for benchmarks
	$(GO) run ./packaging/fill -n $(or $(N),1000000) -dir '$(DIR)'

.PHONY: report-test
report-test: ## compare reports with a count beside the log, for a month of 200,000 calls
	REPORT_TEST_RECORDS=412000 $(GO) test -count 1 -v -run 'TestReportFigures' ./auditstore/report

.PHONY: cover
cover: ## write coverage.out and print the total
	CGO_ENABLED=1 $(GO) test -race -coverprofile coverage.out -coverpkg ./... ./... && $(GO) tool cover -func coverage.out | tail -n 1

.PHONY: tidy-check
tidy-check: ## fail if go.mod or go.sum are not tidy
	$(GO) mod tidy -diff

.PHONY: vuln
vuln: ## look for known vulnerabilities (needs the network)
	govulncheck ./...

.PHONY: systemd-test
systemd-test: build ## boot a real systemd in namespaces and make a call through the socket (root)
	packaging/systemd-test/run.sh

.PHONY: faults
faults: ## cut the power, fill disks, spoil files under a log, and check what must hold (root)
	packaging/faults/run.sh

.PHONY: soak
soak: ## load and mixed faults for SOAK (10m); what the daemon holds must be back where it was
	HSAGENT_SOAK=$(SOAK) $(GO) test -tags faults -count 1 -timeout 2h -v -run '^TestFaultSoak$$' ./cmd/hsagentd

.PHONY: nightly
nightly: soak ## what is too long for every change: the soak, and tests at their full size, such as 1,000,000 calls in the middle of 10,000 rotations
	HSAGENT_CALLS=10000 $(GO) test -count 1 -timeout 1h -run '^TestThreat04' ./agent
	HSAGENT_CUTS=100 packaging/faults/run.sh '^TestFaultPowerCut$$'
	HSAGENT_KILLS=500 $(GO) test -count 1 -timeout 1h -run '^TestThreat03KillAtRandomPoints$$' ./cmd/hsagentd
	HSAGENT_ROUNDS=50 CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -count 1 -timeout 4h -run '^TestThreat01RotationsNeverCrossSlugs$$' ./agent

.PHONY: check
check: tidy-check lint test systemd-test faults ## what CI runs

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) coverage.out
