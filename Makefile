# Everything here needs Go only. `make test` is what CI runs.
SHELL := /bin/bash -o pipefail
GO ?= go
BUILD_FLAGS := -trimpath

.PHONY: test build vet lint unit sweep demo fresh bench generate soak

test: vet lint unit demo fresh ## everything that must pass before a change lands

build: ## the one binary, in bin/
	$(GO) build $(BUILD_FLAGS) -o bin/tidegate ./cmd/tidegate

vet:
	@test -z "$$(gofmt -l cmd internal *.go)" || { echo "run gofmt on:"; gofmt -l cmd internal *.go; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

lint: ## staticcheck, pinned in tools/go.mod
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

unit: ## all tests with the race detector, the crash sweep among them; skipped ones are counted and named
	$(GO) test -race -timeout 20m -v ./... > .test.log 2>&1 || { grep -E '^(\s*--- FAIL|FAIL|panic:|.*_test\.go:[0-9]+:)' .test.log | head -100; tail -60 .test.log; exit 1; }
	@grep -E '^(ok|FAIL|\?|PASS)' .test.log | grep -v 'no test files' || true
	@echo "skipped: $$(grep -cE '^\s*--- SKIP' .test.log || true)"; grep -E '^\s*--- SKIP' -A1 .test.log || true

demo: build ## the main job, on real input
	bin/tidegate demo --once --output json > .demo.log || { tail -5 .demo.log; exit 1; }
	@tail -1 .demo.log

fresh: ## a clone of what is committed builds by itself
	@dir=$$(mktemp -d) && git clone -q . "$$dir/tidegate" && cd "$$dir/tidegate" && $(GO) build ./... && rm -rf "$$dir" && echo "fresh clone builds"
