#!/usr/bin/env bash
# Builds the image with all three binaries, static, on an empty base. Needs docker or podman.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=$(command -v docker || command -v podman || true)
[ -n "$engine" ] || { echo "image: neither docker nor podman is installed" >&2; exit 1; }
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" --bin holdfast --bin holdfast-agent --bin holdfast-coordinator
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "target/$target/release/"{holdfast,holdfast-agent,holdfast-coordinator} "$context/"
strip "$context"/holdfast*
cp deploy/Dockerfile LICENSE "$context/"
# An empty base has no certification authorities: those of this machine, for stores behind TLS.
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ -s "$bundle" ] || { echo "image: $bundle is missing: install ca-certificates or set SSL_CERT_FILE" >&2; exit 1; }
cp "$bundle" "$context/ca-certificates.crt"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
"$engine" build -t "holdfast:$version" --label "org.opencontainers.image.version=$version" "$context"
echo "built holdfast:$version"
