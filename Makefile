# make help lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The one clang that makes the committed BPF objects; nothing else names it.
CLANG_VERSION := 19.1.7

# How long `make fuzz` and `make test` run each fuzz target.
FUZZTIME ?= 500ms

# The kernel of Debian on which `make test` runs everything; on the others it runs
# all rooms but cli, lab and testkit, and a part of the lab.
FULL ?= trixie

# What the tests use beyond Go, as command:Debian-package.
TEST_NEEDS := ip:iproute2 tc:iproute2 ss:iproute2 nstat:iproute2 nft:nftables \
	setcap:libcap2-bin capsh:libcap2-bin unshare:util-linux nsenter:util-linux sysctl:procps setpriv:util-linux \
	script:bsdutils bpftool:bpftool cpio:cpio as:binutils busybox:busybox-static \
	lnstat:iproute2 bridge:iproute2 ethtool:ethtool conntrack:conntrack iptables-legacy:iptables \
	tshark:tshark

# What the virtual machines use, likewise. Debian's keys vouch for its kernels.
VM_NEEDS := qemu-system-x86_64:qemu-system-x86 xz:xz-utils busybox:busybox-static \
	script:bsdutils unshare:util-linux nsenter:util-linux sysctl:procps setpriv:util-linux \
	ip:iproute2 tc:iproute2 bridge:iproute2 ss:iproute2 nstat:iproute2 lnstat:iproute2 \
	nft:nftables bpftool:bpftool ethtool:ethtool conntrack:conntrack iptables-legacy:iptables \
	dropwatch:dropwatch dwdump:dropwatch

# ip, nft and their like are not on everybody's PATH. Version control is not
# asked for a stamp: it refuses a clone that belongs to another user.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
export GOFLAGS := -buildvcs=false
export GOWORK := off

LEVELS := .cache/bin/levels -fuzztime $(FUZZTIME)

.PHONY: help build test test-all test-host vm vm-deps lint unit race fuzz soak root bench bpf bpf-check knowledge clean deps bin clang

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build ./whydrop
	go build -o whydrop ./cmd/whydrop

test: deps vm-deps bin ## lint to bench, in this order, also in machines: all in one, a part in three; installs its needs
	@$(LEVELS) -full $(FULL)

test-all: deps vm-deps bin ## the same with everything on every kernel
	@$(LEVELS)

test-host: deps bin ## the same without the virtual machines
	@$(LEVELS) -without vm -why "test-host boots no machines, make test does"

lint: bin ## gofumpt, go vet, staticcheck, internal/archtest
	@$(LEVELS) lint

unit: deps bin ## unit and golden tests, without root
	@$(LEVELS) unit

race: bin ## the unit tests under the race detector
	@$(LEVELS) race

fuzz: bin ## each fuzz target for FUZZTIME (500ms)
	@$(LEVELS) fuzz

root: deps bin ## tests on the real kernel, as root or through sudo
	@$(LEVELS) root

soak: deps bin ## ten minutes of watching busy healthy hosts, in five, as root
	@$(LEVELS) soak

vm: vm-deps bin ## the tests of root on four of Debian's kernels, in virtual machines
	@$(LEVELS) vm

bench: deps bin ## every benchmark once
	@$(LEVELS) bench

bpf: clang ## make the BPF objects anew with the pinned clang
	@tools/bpf.sh generate $(CLANG_VERSION)

bpf-check: clang ## make the BPF objects in a copy and compare every byte
	@tools/bpf.sh check $(CLANG_VERSION)

knowledge: ## make knowledge/compiled.jsonl of the YAML files anew
	go test ./internal/diagnose -run 'TestCompiled$$' -update-compiled

clean: ## remove ./whydrop and .cache
	rm -rf whydrop .cache

deps:
	@tools/need.sh $(TEST_NEEDS)

vm-deps:
	@tools/need.sh $(VM_NEEDS)

# Built with the versions and sums in tools/go.mod and tools/go.sum.
bin:
	@go -C tools build -o ../.cache/bin/ ./levels mvdan.cc/gofumpt honnef.co/go/tools/cmd/staticcheck

clang: CLANG_MAJOR = $(firstword $(subst ., ,$(CLANG_VERSION)))
clang:
	@tools/need.sh clang-$(CLANG_MAJOR):clang-$(CLANG_MAJOR) llvm-strip-$(CLANG_MAJOR):llvm-$(CLANG_MAJOR)
