"""The plain manifests: up to date with the chart, valid, and whole together with the Secrets that a script makes."""

import base64
import filecmp
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from chart import KUBERNETES, ROOT, helm_path

DIRECTORY = ROOT / "deploy/kubernetes"


def load(text):
    return [o for o in yaml.safe_load_all(text) if o]


@pytest.fixture(scope="module")
def objects():
    kustomization = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())
    rest = {"kustomization.yaml", "values.yaml"}
    assert set(kustomization["resources"]) == {p.name for p in DIRECTORY.glob("*.yaml")} - rest
    return [o for name in kustomization["resources"] for o in load((DIRECTORY / name).read_text())]


@pytest.fixture(scope="module")
def secrets():
    done = subprocess.run([DIRECTORY / "secrets.sh"], capture_output=True, text=True, check=True)
    return {o["metadata"]["name"]: o for o in load(done.stdout)}


def test_they_are_up_to_date(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(helm_path()).parent), prepend=":")
    values = DIRECTORY / "values.yaml"
    subprocess.run([ROOT / "scripts/render-manifests.sh", values, tmp_path], check=True)
    rendered = sorted(p.name for p in tmp_path.iterdir())
    assert rendered == ["agent.yaml", "coordinator.yaml", "crds.yaml"]
    _, different, missing = filecmp.cmpfiles(DIRECTORY, tmp_path, rendered, shallow=False)
    assert not different and not missing, "run scripts/render-manifests.sh"


def test_every_object_is_valid(objects, secrets):
    for found in [*objects, *secrets.values()]:
        kubernetes_validate.validate(found, KUBERNETES, strict=True)
    for found in objects:
        assert found["metadata"].get("namespace", "holdfast") == "holdfast"
        assert "Helm" not in found["metadata"].get("labels", {}).values()
    assert "Secret" not in {o["kind"] for o in objects}


def test_the_secrets_are_those_that_are_referred_to(objects, secrets):
    wanted = {}
    for kind in ("DaemonSet", "StatefulSet"):
        pod = next(o for o in objects if o["kind"] == kind)["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            if "secret" in volume:
                keys = {i["key"] for i in volume["secret"].get("items", [])}
                wanted.setdefault(volume["secret"]["secretName"], set()).update(keys)
    assert set(wanted) == {name for name, o in secrets.items() if o["kind"] == "Secret"}
    # Beside them the authority's certificate alone, for `kubectl holdfast`.
    trust = secrets["holdfast-coordinator-trust"]["data"]
    assert trust["ca.crt"].strip() == base64.b64decode(secrets["holdfast-tls"]["data"]["ca.crt"]).decode().strip()
    for name, keys in wanted.items():
        assert keys <= set(secrets[name].get("data", {})) | set(secrets[name].get("stringData", {}))
    assert secrets["holdfast-encryption"]["immutable"] is True
    assert isinstance(secrets["holdfast-encryption"]["stringData"]["passphrase"], str)


def test_their_certificates_are_good_for_the_service(objects, secrets, tmp_path):
    settings = next(o for o in objects if o["kind"] == "ConfigMap" and "agent.yaml" in o["data"])
    url = yaml.safe_load(settings["data"]["agent.yaml"])["coordinator"]["url"]
    host = url.removeprefix("https://").removesuffix(":7270")
    for name, purpose in (("tls", ["-purpose", "sslserver", "-verify_hostname", host]), ("agent-tls", ["-purpose", "sslclient"])):
        for file in ("ca.crt", "tls.crt"):
            (tmp_path / file).write_bytes(base64.b64decode(secrets[f"holdfast-{name}"]["data"][file]))
        done = subprocess.run(["openssl", "verify", "-CAfile", "ca.crt", *purpose, "tls.crt"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_kustomize_takes_them(objects):
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("kubectl is not installed: kustomization.yaml is not tried")
    done = subprocess.run([kubectl, "kustomize", DIRECTORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def names(found):
        return sorted((o["kind"], o["metadata"]["name"]) for o in found)

    assert names(load(done.stdout)) == names(objects)
