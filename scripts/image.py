#!/usr/bin/env python3
"""Packs a directory as a container image of one layer, for `docker load`, `podman load` or `ctr images import`.

An engine's own build would put the time of the build into the image. Here every byte follows from the directory, the
version and SOURCE_DATE_EPOCH: the same input is the same image, whatever the machine.
Usage: image.py ROOT VERSION OUT
"""

import hashlib
import io
import json
import os
import sys
import tarfile
from datetime import datetime, timezone
from pathlib import Path

# What an image may have, unpacked.
LIMIT_BYTES = 80 * 1000 * 1000
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}
LABELS = {
    "org.opencontainers.image.title": "holdfast",
    "org.opencontainers.image.description": "Backs up what containers keep, and brings it back",
    "org.opencontainers.image.licenses": "Apache-2.0",
}


def entry(name, epoch, mode, size=0, kind=tarfile.REGTYPE):
    found = tarfile.TarInfo(name)
    found.mtime, found.mode, found.size, found.type = epoch, mode, size, kind
    # 0:0 without names, as they stand in TarInfo.
    return found


def layer(root, epoch):
    """Files in the order of their names, of root, with one time and one of two modes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_symlink():
                link = entry(name, epoch, 0o777, kind=tarfile.SYMTYPE)
                link.linkname = os.readlink(path)
                tar.addfile(link)
            elif path.is_dir():
                tar.addfile(entry(name, epoch, 0o755, kind=tarfile.DIRTYPE))
            else:
                content = path.read_bytes()
                mode = 0o755 if os.access(path, os.X_OK) else 0o644
                tar.addfile(entry(name, epoch, mode, len(content)), io.BytesIO(content))
    return out.getvalue()


def image(root, version, epoch, machine, revision=None):
    """The archive, and the image's id."""
    packed = layer(root, epoch)
    size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    if size > LIMIT_BYTES:
        raise SystemExit(f"image: {size} bytes are more than the {LIMIT_BYTES} that an image may have")
    created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = LABELS | {"org.opencontainers.image.version": version, "org.opencontainers.image.created": created}
    if revision:
        labels["org.opencontainers.image.revision"] = revision
    diff = hashlib.sha256(packed).hexdigest()
    config = json.dumps({
        "architecture": ARCHITECTURES[machine],
        "os": "linux",
        "created": created,
        "config": {"Entrypoint": ["/usr/bin/holdfast"], "Env": ["PATH=/usr/bin"], "WorkingDir": "/",
                   "Labels": dict(sorted(labels.items()))},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        "history": [{"created": created, "created_by": "scripts/image.sh"}],
    }, separators=(",", ":")).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{digest}.json", "RepoTags": [f"holdfast:{version}"], "Layers": [f"{diff}.tar"]}])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in ((f"{diff}.tar", packed), (f"{digest}.json", config), ("manifest.json", manifest.encode())):
            tar.addfile(entry(name, epoch, 0o644, len(content)), io.BytesIO(content))
    return out.getvalue(), f"sha256:{digest}", size


def main():
    root, version, out = sys.argv[1:]
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    machine = os.environ.get("TARGET_ARCH", os.uname().machine)
    archive, digest, size = image(Path(root), version, epoch, machine, os.environ.get("REVISION"))
    Path(out).write_bytes(archive)
    print(f"{digest} {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
