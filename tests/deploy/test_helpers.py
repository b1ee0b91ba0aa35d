"""Pods that the coordinator makes: their templates are valid, have these privileges and no others, and go with the
rights that they need."""

import json

import kubernetes_validate
import pytest
import yaml

from chart import KUBERNETES, render
from test_chart import MATRIX, known_keys, keys

ON = {case: given for case, given in MATRIX.items()
      if given[0].get("coordinator", {}).get("kubernetesMode") != "off" and "fullnameOverride" not in given[0]}


def helpers(rendered):
    data = rendered.one("ConfigMap", "hf-holdfast-helpers")["data"]
    return yaml.safe_load(data["helpers.yaml"]), yaml.safe_load(data["restore.yaml"])


def as_pod(template):
    """What the coordinator makes of it, as far as a schema sees."""
    pod = template["pod"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "y", **pod["metadata"]},
            "spec": pod["spec"]}


@pytest.fixture(scope="module")
def defaults():
    return render()


@pytest.mark.parametrize("case", ON)
def test_every_template_is_a_valid_pod(case):
    values, args = ON[case]
    rendered = render(values, *args)
    found, settings = helpers(rendered)
    for kind in ("mount", "restore"):
        if kind in found:
            kubernetes_validate.validate(as_pod(found[kind]), KUBERNETES, strict=True)
    assert set(keys(settings)) <= known_keys("agent/src/settings.rs")
    agent = rendered.settings("agent")
    assert found["kubelet_pods"] == agent["volumes"]["kubelet_pods"]
    assert found["host_roots"] == agent["volumes"]["host_roots"]
    assert settings["coordinator"] == agent["coordinator"]
    assert rendered.settings("coordinator")["kubernetes"]["helpers"] == "/etc/holdfast/helpers/helpers.yaml"
    image = rendered.pod("DaemonSet")["containers"][0]["image"]
    templates = [found[kind]["pod"]["spec"] for kind in ("mount", "restore") if kind in found]
    assert all(spec["containers"][0]["image"] == image for spec in templates)


def test_a_mount_pod_conforms_to_the_restricted_standard(defaults):
    spec = helpers(defaults)[0]["mount"]["pod"]["spec"]
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] != 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert len(spec["containers"]) == 1
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False
    assert not {"volumes", "hostPID", "hostNetwork", "hostIPC", "serviceAccountName", "nodeName"} & set(spec)
    assert spec["activeDeadlineSeconds"] > 0, "it goes, whatever becomes of the coordinator"
    assert not {"env", "envFrom", "ports"} & set(spec["containers"][0])


def test_a_restore_pod_has_these_privileges_and_no_others(defaults):
    pod = helpers(defaults)[0]["restore"]["pod"]
    spec = pod["spec"]
    assert spec["containers"][0]["securityContext"] == {
        "privileged": False, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "runAsUser": 0, "runAsGroup": 0,
        "capabilities": {"drop": ["ALL"], "add": [
            "CHOWN", "FOWNER", "FSETID", "DAC_OVERRIDE", "DAC_READ_SEARCH", "SETFCAP", "MKNOD"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(spec)
    # The volume is added when it is known which.
    assert not any("hostPath" in volume for volume in spec["volumes"])
    secrets = [v["secret"] for v in spec["volumes"] if "secret" in v]
    assert [[i["key"] for i in s["items"]] for s in secrets] == [["ca.crt"]]
    # It must not be taken for a pod of the DaemonSet.
    selector = defaults.one("DaemonSet")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items()
    policy = defaults.one("NetworkPolicy", "hf-holdfast-restore")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["ingress"] == [] and [[p["port"] for p in rule["ports"]] for rule in policy["egress"]] == [[7270], [53, 53]]


def rights(rendered):
    """What accounts of ours may; roles for people are bound to nobody."""
    bound = {(o["roleRef"]["kind"], o["roleRef"]["name"]) for o in rendered if o["kind"].endswith("RoleBinding")}
    found = set()
    for role in (o for o in rendered if (o["kind"], o["metadata"]["name"]) in bound):
        for rule in role["rules"]:
            found |= {(role["kind"], resource, verb) for resource in rule["resources"] for verb in rule["verbs"]}
    return found


@pytest.mark.parametrize("restores", [True, False])
@pytest.mark.parametrize("mounts", [True, False])
def test_rights_go_with_what_needs_them(restores, mounts):
    rendered = render({"coordinator": {"restores": {"enabled": restores}, "mountPods": {"enabled": mounts}}})
    found, _ = helpers(rendered)
    assert ("restore" in found, "mount" in found) == (restores, mounts)
    has = rights(rendered)
    assert {("Role", "pods", "create") in has, ("ClusterRole", "deployments/scale", "patch") in has,
            ("ClusterRole", "persistentvolumeclaims", "create") in has} == {restores}
    assert (("ClusterRole", "pods", "create") in has) == mounts
    assert ("ClusterRole", "restores", "patch") in has
    deleted = {resource for _, resource, verb in has if verb == "delete"}
    assert deleted <= {"pods", "volumeprotections", "backups"}, "of others nothing is deleted"
    assert "secrets" not in json.dumps([o for o in rendered if o["kind"].endswith("Role")])


def test_nothing_of_it_without_a_cluster():
    rendered = render({"coordinator": {"kubernetesMode": "off"}})
    assert "hf-holdfast-helpers" not in {o["metadata"]["name"] for o in rendered}
    assert "helpers" not in json.dumps(rendered.pod("StatefulSet"))
