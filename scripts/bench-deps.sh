#!/usr/bin/env bash
# Installs the peers that the benchmark compares with, and the database of part Q, as far as this machine can.
# What cannot be installed is reported as 'not measured'.
set -uo pipefail
if [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || true
  for package in restic borgbackup postgresql e2fsprogs libsodium-dev pkg-config; do
    apt-get install -y -qq "$package" >/dev/null || echo "not installed: $package" >&2
  done
fi
command -v bupstash >/dev/null || cargo install --locked bupstash || echo "not installed: bupstash" >&2
command -v conserve >/dev/null || cargo install --locked conserve || echo "not installed: conserve" >&2
command -v rustic >/dev/null || cargo install --locked rustic-rs || echo "not installed: rustic" >&2
