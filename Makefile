# The project's commands. `make demo` and `make test` are the two that matter.
# Seconds that `make test` feeds each of the 28 decoders: under five minutes in all on two processors.
FUZZ_SECONDS ?= 20
# What `make bench` measures; each word is a run and a section of its own.
PARTS ?= A B C,S,G D J V H E W Q K M,F,P

.PHONY: demo test bench image fuzz soak

# Builds and runs the main job on sample volumes: back up, change, back up, restore, compare.
demo:
	cargo build --release --locked --bin holdfast
	scripts/demo.sh target/release/holdfast

# Installs what the tests need, starts the servers, and runs everything.
test:
	scripts/test-deps.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny check bans licenses sources
	@if timeout 60 cargo deny fetch db >/dev/null 2>&1; then cargo deny check advisories; else echo "advisories: the database is not reachable, not checked"; fi
	target/test-tools/chart/bin/python -m pytest -q -p no:cacheprovider tests/deploy
	cargo build --workspace --bins --locked
	HOLDFAST_FUZZ_SECONDS=$(FUZZ_SECONDS) cargo nextest run --workspace --locked --no-fail-fast

# Runs holdfast and its peers on the corpora and writes BENCHMARKS.md.
bench:
	scripts/bench-deps.sh
	cargo build --release --locked --bins
	for part in $(PARTS); do \
		target/release/holdfast-bench --only $$part --section $${part%%,*} --out BENCHMARKS.md $(BENCH) || exit 1; \
	done

# The one image: one binary under three names.
image:
	scripts/image.sh

# The long versions of the tests.
soak:
	HOLDFAST_SOAK=1 cargo nextest run --workspace --locked --no-fail-fast

# Every decoder, twenty minutes each.
fuzz:
	HOLDFAST_FUZZ_SECONDS=1200 cargo nextest run -p holdfast-format fuzz
