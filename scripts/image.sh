#!/usr/bin/env bash
# Builds the image with the one binary under its three names, static, on an empty base: the same sources, compiler and certification
# authorities give the same image. Leaves it in target/image, with the list of what it is made of; loads it where
# there is docker or podman.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
target=$(rustc -vV | sed -n 's/^host: //p')
out=target/image
root=$out/root
revision=$(git rev-parse HEAD 2>/dev/null || true)
# The time of the sources is the only time in the image.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

# Where the sources and the crates lie is nobody's business, and must not make binaries differ.
remap="--remap-path-prefix=$PWD=/holdfast --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
CARGO_INCREMENTAL=0 RUSTFLAGS="-C target-feature=+crt-static $remap" \
  cargo build --release --locked --target "$target" --bin holdfast

rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs"
cp "target/$target/release/holdfast" "$root/usr/bin/"
strip "$root/usr/bin/holdfast"
# One program under three names: it is what it is called.
ln -s holdfast "$root/usr/bin/holdfast-agent"
ln -s holdfast "$root/usr/bin/holdfast-coordinator"
cp LICENSE "$root/"
# An empty base has no certification authorities: those of this machine, for stores behind TLS.
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ -s "$bundle" ] || { echo "image: $bundle is missing: install ca-certificates or set SSL_CERT_FILE" >&2; exit 1; }
cp "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
scripts/sbom.py "$target" "$root/sbom.json"
cp "$root/sbom.json" "$out/holdfast-$version.sbom.json"

archive=$out/holdfast-$version.tar
REVISION=$revision TARGET_ARCH=${target%%-*} scripts/image.py "$root" "$version" "$archive"
engine=$(command -v docker || command -v podman || true)
if [ -n "$engine" ]; then
  "$engine" load --input "$archive"
else
  echo "image: neither docker nor podman is installed: load $archive where one is" >&2
fi
