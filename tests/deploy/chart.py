"""Renders the chart as `helm template` does, and finds objects in what comes out."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/chart"
KUBERNETES = "1.31"
RELEASE, NAMESPACE = "hf", "holdfast"


def helm_path():
    """Beside the interpreter of the tests first: that one is of a known version."""
    beside = Path(sys.executable).parent / "helm"
    return str(beside) if beside.exists() else shutil.which("helm")


def helm(*args, values=None):
    """Runs helm with values given as a dictionary."""
    command = [helm_path(), *args]
    if values is not None:
        # JSON is YAML.
        command += ["--values", "-"]
    return subprocess.run(
        command, input=json.dumps(values or {}), capture_output=True, text=True, env={**os.environ, "HELM_DEBUG": ""}
    )


class Rendered(list):
    """Objects, in the order in which they were rendered."""

    def one(self, kind, name=None):
        found = [o for o in self if o["kind"] == kind and name in (None, o["metadata"]["name"])]
        if name is None:
            # Roles for users and what clients trust are asked for by name.
            apart = ("users", "trust")
            found = [o for o in found if o["metadata"]["labels"].get("app.kubernetes.io/component") not in apart]
        assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
        return found[0]

    def kinds(self):
        return {o["kind"] for o in self}

    def settings(self, of):
        """agent.yaml or coordinator.yaml."""
        return yaml.safe_load(self.one("ConfigMap", f"hf-holdfast-{of}")["data"][f"{of}.yaml"])

    def pod(self, kind):
        return self.one(kind)["spec"]["template"]["spec"]


def template(values=None, *args):
    """What helm says, whether it renders or refuses."""
    return helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES, *args,
                values=values)


def render(values=None, *args):
    done = template(values, *args)
    assert done.returncode == 0, done.stderr
    return Rendered(o for o in yaml.safe_load_all(done.stdout) if o)
