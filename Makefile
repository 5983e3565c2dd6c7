# make run     a controller, three nodes and an origin on this machine; Ctrl-C ends and removes all of it
# make test    everything that must hold: format, lints, documentation, tests, deployment
# make bench   figures and goals, beside nginx and haproxy in the same run
# make soak    traffic while vhosts change all the time, every answer checked; ARGS='--updates 100000' for the long form
# make planted tests the tests: a suite finds each bug that can be planted; ARGS='NAME…' for some of them
# make fuzz    new inputs for the parsers, as long as FUZZ_SECONDS each; needs a nightly toolchain and cargo-fuzz
# make lint    format, lints and documentation alone
# make install the programs, default configuration and systemd units below $(DESTDIR)

SHELL   := /bin/bash
CARGO   ?= cargo
DESTDIR ?=
# Whose programs `install` takes and `manifests` asks.
BIN     ?= target/dist

VENV := target/venv

# Debian keeps nginx out of the PATH of ordinary users.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: run test bench soak planted fuzz lint manifests build shippable install install-node install-controller install-systemd tools tools-test tools-bench clean

# With the tests in the build (any of --workspace is so) the programs have bugs on demand, dormant unless DYSVR_PLANTED names one.
run: tools
	$(CARGO) build --release --workspace --bins
	exec $(CARGO) run --quiet --release -p dysvr-tests --bin dysvr-demo

test: tools-test lint
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace
	$(MAKE) --no-print-directory manifests BIN=target/debug

# The proxy as it is shipped.
bench: tools-bench
	$(CARGO) build --profile dist -p dysvr-node --bins
	$(CARGO) build --release -p dysvr-tests --bin dysvr-bench
	DYSVR_BIN_DIR=$(CURDIR)/target/dist exec target/release/dysvr-bench $(ARGS)

soak: tools
	$(CARGO) build --profile dist -p dysvr-node --bins
	$(CARGO) build --release -p dysvr-tests --bin dysvr-soak
	DYSVR_BIN_DIR=$(CURDIR)/target/dist exec target/release/dysvr-soak $(ARGS)

planted: tools-test
	$(CARGO) build --workspace --bins
	exec target/debug/dysvr-planted $(ARGS)

# What it finds stands in tests/fuzz/artifacts; mended, it goes into the target's corpus, which `make test` replays. What it
# has tried is for the next time, in target/.
FUZZ_SECONDS ?= 300
fuzz: tools
	for target in configuration task_file message; do \
		mkdir -p target/fuzz/$$target; \
		$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz -O $$target target/fuzz/$$target tests/fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -dict=tests/fuzz/dictionary -max_len=4096 || exit 1; \
	done

# The documentation of private items too: these are programs, and who reads it works on them.
lint: tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-Dwarnings -Arustdoc::private-intra-doc-links' $(CARGO) doc --workspace --no-deps --document-private-items

# Each package by itself: together with the tests they would be built with bugs on demand, as by `make run`.
build: tools
	$(CARGO) build --profile dist -p dysvr-node -p dysvr-controller --bins
	$(MAKE) --no-print-directory shippable BIN=target/dist

# The programs are there, and none has bugs on demand. grep says 1 when it has read all of a file and found nothing.
shippable:
	@for program in dysvr-proxy dysvr-node dysvr-controller dysvrctl; do \
		test -s $(BIN)/$$program || { echo "$(BIN)/$$program is missing" >&2; exit 1; }; \
		grep -qE 'DYSVR_(PLANTED|POISON)' $(BIN)/$$program; \
		test $$? = 1 || { echo "$(BIN)/$$program was built with bugs on demand, or cannot be read" >&2; exit 1; }; \
	done

# Strictly against Kubernetes' schemas, and every command line and path against the programs that were built.
manifests: $(VENV)/ready
	$(VENV)/bin/python deploy/check --bin $(BIN)
	BIN=$(BIN) $(VENV)/bin/python deploy/check/test_check.py

$(VENV)/ready: deploy/requirements.txt
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement deploy/requirements.txt
	touch $@

tools:
	@command -v $(CARGO) >/dev/null || { echo "a stable Rust toolchain is needed: https://rustup.rs" >&2; exit 1; }
	@.ci/packages cc:build-essential

tools-test: tools
	.ci/packages nginx:nginx-extras etcd:etcd-server strace:strace python3:python3 systemd-analyze:systemd
	python3 -c 'import ensurepip, venv' 2>/dev/null || .ci/packages :python3-venv

tools-bench: tools
	.ci/packages nginx:nginx-extras haproxy:haproxy wrk:wrk

# The layout of a machine, and of the images (deploy/docker/Dockerfile installs with these targets).
install: install-node install-controller install-systemd

install-node: shippable
	install -D -m 755 $(BIN)/dysvr-proxy $(DESTDIR)/usr/sbin/dysvr-proxy
	install -D -m 755 $(BIN)/dysvr-node $(DESTDIR)/usr/sbin/dysvr-node
	install -D -m 755 deploy/conf/seed-prefix $(DESTDIR)/usr/libexec/dysvr/seed-prefix
	install -D -m 644 deploy/conf/nginx.conf $(DESTDIR)/usr/share/dysvr/conf/nginx.conf
	install -D -m 644 deploy/conf/common_location.conf $(DESTDIR)/usr/share/dysvr/conf/common_location.conf
	install -d -m 755 $(DESTDIR)/usr/share/dysvr/conf/auto_vhost $(DESTDIR)/usr/share/dysvr/conf/auto_upstream

install-controller: shippable
	install -D -m 755 $(BIN)/dysvr-controller $(DESTDIR)/usr/sbin/dysvr-controller
	install -D -m 755 $(BIN)/dysvrctl $(DESTDIR)/usr/bin/dysvrctl

install-systemd:
	install -D -m 644 -t $(DESTDIR)/usr/lib/systemd/system deploy/systemd/dysvr-proxy.service deploy/systemd/dysvr-node.service deploy/systemd/dysvr-controller.service
	install -D -m 644 deploy/systemd/dysvr.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/dysvr.conf
	install -D -m 644 deploy/systemd/dysvr.logrotate $(DESTDIR)/etc/logrotate.d/dysvr
	install -d -m 755 $(DESTDIR)/etc/dysvr
	test -e $(DESTDIR)/etc/dysvr/node.env || install -m 644 deploy/systemd/node.env $(DESTDIR)/etc/dysvr/node.env
	test -e $(DESTDIR)/etc/dysvr/controller.env || install -m 644 deploy/systemd/controller.env $(DESTDIR)/etc/dysvr/controller.env

clean:
	$(CARGO) clean
