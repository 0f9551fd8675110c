# One command for each need; the same in CI. `make help` lists them.
SHELL := /bin/bash
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast check models mutation format sim bench lab perf image clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n",$$1,$$2}' Makefile

setup: ## install npm and (as root) Debian packages; does nothing the second time
	@scripts/setup.sh

run: setup ## start the appliance on this machine and watch it live (needs root)
	@npm run -s bench -- run

test: setup ## all tests: unit, property, contract, bench
	@vitest run

test-fast: setup ## tests that need neither root nor Debian packages
	@vitest run --project fast

check: setup ## formatting, lint, types, import rules, dead code
	@biome check --error-on-warnings .
	@tsc
	@node scripts/check-imports.ts
	@knip --no-progress
	@node scripts/check-models.ts

models: setup ## every model at its largest bounds, exhaustively (needs spin, 6 GB and 15 minutes)
	@npm run -s models -- --all

mutation: setup ## do the tests of core and wire notice planted mistakes? (hours; can be stopped and taken up again)
	@npm run -s mutation

format: setup ## rewrite the files in the project's format
	@biome check --write .

bench: setup ## every fault of the bench, 20 runs each, one JSON line per fault
	@npm run -s bench -- campaign --runs 20 --json

perf: setup ## block path and takeover figures
	@npm run -s perf -- --json

sim: setup ## 10,000 seeds of the pair in virtual time and a crash at every step, on all cores; then the models
	@npm run -s sim -- --seeds 10000
	@npm run -s sim -- --every-step
	@npm run -s models -- --all

lab: setup ## virtual machines on real drivers (not built yet)
	@npm run -s lab

image: setup ## the appliance image (not built yet)
	@node scripts/not-yet.ts image

clean: ## remove what a broken run left behind, then everything that was built
	@if [ -x node_modules/.bin/node ] && [ "$$(id -u)" = 0 ]; then npm run -s bench -- clean; fi
	@rm -rf node_modules coverage work
