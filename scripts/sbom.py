#!/usr/bin/env python3
"""Writes what the programs are made of, as CycloneDX JSON: every crate that is linked into one of them.

Reads `cargo metadata` and Cargo.lock, nothing else; the same sources give the same bytes.
Usage: sbom.py TARGET OUT
"""

import json
import os
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

PROGRAMS = ("holdfast", "holdfast-agent", "holdfast-coordinator")


def metadata(target):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(found):
    """Packages below the programs by normal dependencies. A macro and what it needs stay in the compiler."""
    packages = {p["id"]: p for p in found["packages"]}
    nodes = {n["id"]: n for n in found["resolve"]["nodes"]}
    members = [packages[i] for i in found["workspace_members"]]
    todo = [p["id"] for p in members if any(t["name"] in PROGRAMS and "bin" in t["kind"] for t in p["targets"])]
    graph = {}
    while todo:
        at = todo.pop()
        if at in graph:
            continue
        graph[at] = sorted(
            d["pkg"]
            for d in nodes[at]["deps"]
            if any(k["kind"] is None for k in d["dep_kinds"])
            and not any("proc-macro" in t["kind"] for t in packages[d["pkg"]]["targets"])
        )
        todo += graph[at]
    return packages, graph


def document(target, lock, epoch):
    packages, graph = linked(metadata(target))
    sums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.loads(lock)["package"]}

    def name(at):
        return f"pkg:cargo/{packages[at]['name']}@{packages[at]['version']}"

    def component(at):
        package = packages[at]
        made = {
            "type": "library",
            "bom-ref": name(at),
            "name": package["name"],
            "version": package["version"],
            "purl": name(at),
        }
        if package["license"]:
            # Some manifests still write the old form of OR.
            made["licenses"] = [{"expression": package["license"].replace(" / ", "/").replace("/", " OR ")}]
        checksum = sums[package["name"], package["version"]]
        if checksum:
            made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return made

    order = sorted(graph, key=name)
    programs = [at for at in order if at in graph and packages[at]["source"] is None]
    version = packages[programs[0]]["version"]
    top = f"pkg:generic/holdfast@{version}"
    body = {
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "container", "bom-ref": top, "name": "holdfast", "version": version, "purl": top,
                          "licenses": [{"license": {"id": "Apache-2.0"}}]},
        },
        "components": [component(at) for at in order],
        "dependencies": [{"ref": top, "dependsOn": [name(at) for at in programs]}]
        + [{"ref": name(at), "dependsOn": [name(d) for d in graph[at]]} for at in order],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def main():
    target, out = sys.argv[1:]
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    root = Path(__file__).resolve().parents[1]
    os.chdir(root)
    made = document(target, (root / "Cargo.lock").read_text(), epoch)
    Path(out).write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
