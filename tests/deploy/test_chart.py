"""The chart: what it renders is valid, holds the promises about privileges, and refuses what it does not know."""

import base64
import functools
import json
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from chart import CHART, KUBERNETES, ROOT, helm, render, template
from cluster import cluster

# Otherwise each object would have all definitions parsed again.
kubernetes_validate.utils.schema_contents = functools.lru_cache(kubernetes_validate.utils.schema_contents)

MONITORING = ("--api-versions", "monitoring.coreos.com/v1")
KUBELET_ROOTS = [
    "/var/lib/kubelet",
    "/var/lib/k0s/kubelet",
    "/var/snap/microk8s/common/var/lib/kubelet",
    "/opt/rke/var/lib/kubelet",
    "/var/nutanix/var/lib/kubelet",
    "/var/vcap/data/kubelet",
]
S3 = {"repository": {"url": "s3://backups/cluster-1", "endpoint": "https://s3.example.org:9000", "region": "eu-1",
                     "pathStyle": True}, "credentials": {"existingSecret": "store"}}
OWN_TLS = {"tls": {"mode": "existingSecret", "existingSecret": "own-tls"}}

# Name: values, arguments of helm.
MATRIX = {
    "defaults": ({}, ()),
    "s3": (S3, ()),
    "gs": ({"repository": {"url": "gs://bucket/x"}, "serviceAccount": {"annotations": {"a/b": "c"}}}, ()),
    "azure": ({"repository": {"url": "az://container/x"}, "credentials": {"existingSecret": "azure"}}, ()),
    "nas": ({"repository": {"url": "file:///nas/holdfast", "persistence": {"enabled": False}},
             "coordinator": {"extraVolumes": [{"name": "nas", "nfs": {"server": "nas", "path": "/x"}}],
                             "extraVolumeMounts": [{"name": "nas", "mountPath": "/nas"}]}}, ()),
    "existing claim": ({"repository": {"persistence": {"existingClaim": "mine"}}}, ()),
    "classes": ({"repository": {"persistence": {"storageClass": "-", "annotations": {"a": "b"}}},
                 "coordinator": {"persistence": {"storageClass": "fast"}}}, ()),
    "no network policy": ({"networkPolicy": {"enabled": False}}, ()),
    "narrow network policy": ({"networkPolicy": {
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}], "scrapers": [],
        "coordinatorEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}, ()),
    "other accounts": ({"serviceAccount": {"create": False, "name": "theirs"},
                        "agent": {"serviceAccountName": "agents"}}, ()),
    "hooks": ({"coordinator": {"hooks": {"enabled": True}}}, ()),
    "no rights": ({"rbac": {"create": False}, "coordinator": {"kubernetesMode": "off"}}, ()),
    "own certificates": (OWN_TLS, ()),
    "two own certificates": ({"tls": {**OWN_TLS["tls"], "agentSecret": "agents-tls", "requireClientCertificate": True}}, ()),
    "cert-manager": ({"tls": {"mode": "certManager", "certManager": {"issuerRef": {"name": "ca"}}}}, ()),
    "client certificates": ({"tls": {"requireClientCertificate": True, "extraNames": ["backup.example.org"]}}, ()),
    "monitors": ({"metrics": {"podMonitor": {"labels": {"release": "x"}}}}, MONITORING),
    "forced monitors": ({"metrics": {"podMonitor": {"force": True}, "serviceMonitor": {"force": True}}}, ()),
    "alerts and dashboard": ({"metrics": {"prometheusRule": {"force": True, "alertLabels": {"team": "x"}},
                                          "grafanaDashboard": {"enabled": True}}}, ()),
    "no metrics": ({"metrics": {"enabled": False}}, MONITORING),
    "localhost seccomp": ({"agent": {"seccompProfile": {"type": "Localhost"}}}, ()),
    "installed seccomp": ({"agent": {"seccompProfile": {"type": "Localhost", "install": {"image": "busybox:1"}}}}, ()),
    "selinux": ({"agent": {"seLinuxOptions": {"type": "spc_t"}}}, ()),
    "host roots": ({"agent": {"hostRoots": ["/opt/local-path-provisioner", "/var/mnt/data"]}}, ()),
    "own passphrase": ({"encryption": {"existingSecret": "mine", "secretKey": "word"}}, ()),
    "own key file": ({"encryption": {"existingSecret": "mine", "secretKey": "repository.key", "type": "keyFile"},
                      "repository": {"init": False}}, ()),
    "priority": ({"priorityClass": {"create": True}, "coordinator": {"priorityClassName": "mine"}}, ()),
    "digest": ({"image": {"repository": "r.example.org/holdfast", "digest": "sha256:" + "0" * 64,
                          "pullSecrets": ["pull"], "pullPolicy": "Always"}}, ()),
    "names": ({"nameOverride": "n", "fullnameOverride": "x" * 60}, ()),
    "continuous": ({"coordinator": {"continuous": [{"volumes": "*", "max_age": "1h"}],
                                    "extraConfig": {"packs": {"level": 5}}},
                    "agent": {"extraConfig": {"backup": {"read_rate": "50MiB"}}}}, ()),
    "no restores": ({"coordinator": {"restores": {"enabled": False}}}, ()),
    "no mount pods": ({"coordinator": {"mountPods": {"enabled": False}}}, ()),
    "neither": ({"coordinator": {"restores": {"enabled": False}, "mountPods": {"enabled": False}}}, ()),
    "extra objects": ({"extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "{{ .Release.Namespace }}"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-two'}"]}, ()),
    "everything extra": ({part: {
        "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "extraEnvVars": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "extraVolumes": [{"name": "x", "emptyDir": {}}], "extraVolumeMounts": [{"name": "x", "mountPath": "/x"}],
        "affinity": {"nodeAffinity": {}}, "tolerations": [{"key": "a", "operator": "Exists"}],
        "nodeSelector": {"e": "f"}, "priorityClassName": "high"} for part in ("agent", "coordinator")}, ()),
    **{f"kubelet {root}": ({"agent": {"kubeletRoot": root}}, ()) for root in KUBELET_ROOTS},
}


@pytest.fixture(scope="module")
def defaults():
    return render()


def container(pod, name):
    return next(c for c in pod["containers"] if c["name"] == name)


def test_lint():
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", MATRIX)
def test_every_object_is_valid(case):
    values, args = MATRIX[case]
    done = template(values, *args)
    assert done.returncode == 0, done.stderr
    # The usual loader takes the last of two equal keys; the API server does not.
    objects = [o for o in yaml.load_all(done.stdout, Loader=NoDuplicates) if o]
    names = [(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in objects]
    assert len(names) == len(set(names))
    for found in objects:
        assert len(found["metadata"]["name"]) <= 63
        if found["apiVersion"].split("/")[0] not in ("monitoring.coreos.com", "cert-manager.io"):
            assert kubernetes_validate.validate(found, KUBERNETES, strict=True) == KUBERNETES
    for kind in ("DaemonSet", "StatefulSet"):
        check_mounts(next(o for o in objects if o["kind"] == kind))


class NoDuplicates(yaml.SafeLoader):
    """Refuses a mapping that has one key twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice among {keys}{node.start_mark}"
        return super().construct_mapping(node, deep)


def check_mounts(workload):
    """What a schema cannot say: every mount names a volume, each volume and path is there once, labels match."""
    spec = workload["spec"]
    pod = spec["template"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    claims = [c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", [])]
    volumes = [v["name"] for v in pod["volumes"]] + claims
    assert len(volumes) == len(set(volumes))
    used = set()
    for c in pod["containers"] + pod.get("initContainers", []):
        paths = [m["mountPath"] for m in c["volumeMounts"]]
        assert len(paths) == len(set(paths))
        used |= {m["name"] for m in c["volumeMounts"]}
    assert used == set(volumes)


@pytest.mark.parametrize("values", [
    {"agnet": {}},
    {"agent": {"kubletRoot": "/x"}},
    {"agent": {"kubeletRoot": "var/lib/kubelet"}},
    {"agent": {"hostRoots": "/opt"}},
    {"image": {"digest": "latest"}},
    {"repository": {"url": "/srv/backups"}},
    {"repository": {"url": "http://minio/bucket"}},
    {"metrics": {"serviceMonitor": {"enabled": "yes"}}},
    {"logging": {"format": "xml"}},
    {"terminationGracePeriodSeconds": 5},
    {"coordinator": {"continuous": [{"volumes": "*"}]}},
    {"coordinator": {"replicas": 2}},
])
def test_unknown_and_wrong_values_are_refused(values):
    done = template(values)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


@pytest.mark.parametrize("values, message", [
    ({"tls": {"mode": "existingSecret"}}, "tls.existingSecret must be set"),
    ({"tls": {"mode": "certManager"}}, "issuerRef.name must be set"),
    ({"encryption": {"type": "keyFile"}}, "needs encryption.existingSecret"),
    ({"repository": {"url": "file:///elsewhere/x"}}, "must lie below repository.persistence.mountPath"),
])
def test_what_cannot_work_is_refused(values, message):
    done = template(values)
    assert done.returncode != 0
    assert message in done.stderr


def test_every_value_is_in_the_schema_and_in_the_table():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    table = (CHART / "README.md").read_text()
    # Kubernetes' own structures: one row says it all.
    whole = {"coordinator.resources", "agent.resources", "agent.seLinuxOptions", "coordinator.restores.resources",
             "coordinator.mountPods.resources"}

    def walk(value, found, path):
        if "$ref" in found:
            found = schema["definitions"][found["$ref"].rsplit("/", 1)[1]]
        if "properties" not in found or path in whole:
            assert f"`{path}`" in table, f"{path} is not in README.md"
            return
        assert found["additionalProperties"] is False, path
        assert set(value) == set(found["properties"]) - {"global"}, path
        for key, below in value.items():
            walk(below, found["properties"][key], f"{path}.{key}".lstrip("."))

    walk(values, schema, "")
    for row in re.findall(r"^\| (`.*?) \|", table, re.M):
        for path in re.findall("`([^`]+)`", row):
            assert functools.reduce(lambda at, key: at[key], path.split("."), values) is not ..., path


def test_version_is_the_workspaces():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    assert chart["version"] == chart["appVersion"] == version


def test_agent_has_these_privileges_and_no_others(defaults):
    pod = defaults.pod("DaemonSet")
    assert len(pod["containers"]) == 1 and "initContainers" not in pod
    security = container(pod, "agent")["securityContext"]
    assert security == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsUser": 0,
        "runAsGroup": 0,
        "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH", "LEASE"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for shared in ("hostPID", "hostNetwork", "hostIPC"):
        assert not pod.get(shared)
    assert pod["automountServiceAccountToken"] is False
    assert defaults.one("ServiceAccount", "hf-holdfast-agent")["automountServiceAccountToken"] is False
    assert not any(v.get("projected") for v in pod["volumes"])
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert "cpu" not in container(pod, "agent")["resources"]["limits"]
    # Nothing but the coordinator's certificate authority comes from a Secret.
    secrets = [v["secret"] for v in pod["volumes"] if "secret" in v]
    assert [[i["key"] for i in s["items"]] for s in secrets] == [["ca.crt"]]
    assert [e["name"] for e in container(pod, "agent")["env"]] == ["HOLDFAST_AGENT_NODE"]
    assert "envFrom" not in container(pod, "agent")


def test_the_coordinator_knows_its_node(defaults):
    """Its own host name is the pod's: a start of the node anew would count as a move to another."""
    env = container(defaults.pod("StatefulSet"), "coordinator")["env"]
    assert {"name": "HOLDFAST_STATE_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}} in env


def test_no_account_but_the_coordinators_has_rights(defaults):
    for binding in (o for o in defaults if o["kind"].endswith("RoleBinding")):
        assert [s["name"] for s in binding["subjects"]] == ["hf-holdfast-coordinator"]
    rules = defaults.one("ClusterRole")["rules"]
    for rule in rules:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        ours = rule["apiGroups"] == ["holdfast.dev"]
        written = {(resource, verb) for resource in rule["resources"] for verb in rule["verbs"]
                   if not ours and verb not in ("get", "list", "watch")}
        # Each is explained where it is given (rbac.yaml); test_helpers.py switches those of helper pods off.
        assert written <= {
            ("events", "create"), ("events", "patch"), ("pods", "create"), ("pods", "delete"),
            ("persistentvolumeclaims", "create"), ("persistentvolumeclaims", "patch"),
            ("deployments/scale", "patch"), ("statefulsets/scale", "patch"), ("replicasets/scale", "patch")}
    assert not any("secrets" in rule["resources"] for rule in rules)


def test_roles_for_users_are_bound_to_nobody_and_hold_no_secret(defaults):
    names = ("hf-holdfast-view", "hf-holdfast-operator")
    roles = [defaults.one("ClusterRole", name) for name in names] + [defaults.one("Role", "hf-holdfast-connect")]
    for role in roles:
        for binding in (o for o in defaults if o["kind"].endswith("RoleBinding")):
            assert binding["roleRef"]["name"] != role["metadata"]["name"]
        for rule in role["rules"]:
            assert "secrets" not in rule["resources"] and "*" not in rule["verbs"] + rule["apiGroups"]
    view, operator, connect = roles
    assert all(set(rule["verbs"]) <= {"get", "list", "watch"} for rule in view["rules"])
    aggregated = "rbac.authorization.k8s.io/aggregate-to-"
    assert view["metadata"]["labels"][aggregated + "view"] == "true"
    assert aggregated + "view" not in operator["metadata"]["labels"]
    # Who reaches the coordinator may do everything there: never by aggregation.
    assert not any(label.startswith(aggregated) for label in connect["metadata"]["labels"])
    alone = render({"rbac": {"aggregate": False}}).one("ClusterRole", names[1])
    assert not any(label.startswith(aggregated) for label in alone["metadata"]["labels"])
    none = render({"rbac": {"userRoles": False}})
    assert not {o["metadata"]["name"] for o in none} & {*names, "hf-holdfast-connect"}


def test_the_authority_is_published_without_a_key(defaults):
    trust = defaults.one("ConfigMap", "hf-holdfast-coordinator-trust")["data"]
    assert set(trust) == {"ca.crt", "server-name"} and "PRIVATE KEY" not in trust["ca.crt"]
    secret = defaults.one("Secret", "hf-holdfast-tls")["data"]
    assert trust["ca.crt"].strip() == base64.b64decode(secret["ca.crt"]).decode().strip()
    assert trust["server-name"] in defaults.settings("agent")["coordinator"]["url"]
    annotations = defaults.one("StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["holdfast.dev/tls"] == "required"
    assert not any(o["metadata"]["name"].endswith("-trust") for o in render(OWN_TLS))
    authority = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
    own = render({"tls": OWN_TLS["tls"] | {"authority": authority}})
    assert own.one("ConfigMap", "hf-holdfast-coordinator-trust")["data"]["ca.crt"].strip() == authority


def test_commands_in_containers_are_allowed_only_where_hooks_are_asked_for(defaults):
    def execs(rendered):
        rules = rendered.one("ClusterRole")["rules"]
        return [sorted(r["verbs"]) for r in rules if "pods/exec" in r["resources"]]

    assert execs(defaults) == []
    # Older servers ask for `create` of a websocket, newer ones for `get`.
    assert execs(render({"coordinator": {"hooks": {"enabled": True}}})) == [["create", "get"]]


@pytest.mark.parametrize("root", KUBELET_ROOTS)
def test_agent_sees_the_nodes_directories_at_their_own_paths(root):
    roots = ["/opt/local-path-provisioner", "/data"]
    rendered = render({"agent": {"kubeletRoot": root, "hostRoots": roots}})
    pod = rendered.pod("DaemonSet")
    mounts = {m["mountPath"]: m for m in container(pod, "agent")["volumeMounts"]}
    paths = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    for path in [f"{root}/pods", *roots]:
        assert mounts[path]["mountPropagation"] == "HostToContainer"
        assert mounts[path]["readOnly"] is True
        assert paths[mounts[path]["name"]] == path
    assert set(paths.values()) == {f"{root}/pods", *roots, "/var/lib/holdfast/agent"}
    settings = rendered.settings("agent")
    assert settings["volumes"] == {"kubelet_pods": f"{root}/pods", "host_roots": roots}
    assert settings["state"]["dir"] == "/var/lib/holdfast/agent"


def keys(settings, prefix=""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def known_keys(file):
    """Keys that the process asks its settings for."""
    return set(re.findall(r'"([a-z]+(?:\.[a-z_]+)?)"', (ROOT / file).read_text()))


@pytest.mark.parametrize("case", MATRIX)
def test_settings_are_known_to_the_processes(case):
    values, args = MATRIX[case]
    if "fullnameOverride" in values:
        return
    rendered = render(values, *args)
    agent = known_keys("agent/src/settings.rs")
    coordinator = known_keys("coordinator/src/settings.rs")
    assert set(keys(rendered.settings("agent"))) <= agent
    assert set(keys(rendered.settings("coordinator"))) <= coordinator


def test_a_stop_ends_before_the_pod_is_killed():
    rendered = render({"terminationGracePeriodSeconds": 60})
    for kind, name in (("DaemonSet", "agent"), ("StatefulSet", "coordinator")):
        assert rendered.pod(kind)["terminationGracePeriodSeconds"] == 60
        assert rendered.settings(name)["drain"]["grace"] == "55s"


def test_credentials_reach_the_coordinator_alone():
    rendered = render(S3)
    pod = rendered.pod("StatefulSet")
    for found in pod["containers"] + pod["initContainers"]:
        assert found["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert "store" not in json.dumps(rendered.one("DaemonSet"))
    settings = rendered.settings("coordinator")["repository"]
    assert (settings["endpoint"], settings["region"], settings["path_style"]) == ("https://s3.example.org:9000", "eu-1", True)
    url = next(a for a in pod["initContainers"][0]["args"] if a.startswith("--repo="))
    assert url == "--repo=s3://backups/cluster-1?endpoint=https%3A%2F%2Fs3.example.org%3A9000&region=eu-1&path_style=true"
    claims = rendered.one("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert [c["metadata"]["name"] for c in claims] == ["state"]


def test_coordinator_is_not_root(defaults):
    pod = defaults.pod("StatefulSet")
    assert pod["securityContext"]["runAsNonRoot"] is True
    for found in pod["containers"] + pod["initContainers"]:
        assert found["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert found["securityContext"]["readOnlyRootFilesystem"] is True
    assert not any("hostPath" in v for v in pod["volumes"])


def test_the_passphrase_is_random_kept_and_never_changed(defaults):
    secret = defaults.one("Secret", "hf-holdfast-encryption")
    assert secret["immutable"] is True
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    passphrase = base64.b64decode(secret["data"]["passphrase"]).decode()
    assert re.fullmatch("[A-Za-z0-9]{48}", passphrase)
    assert render().one("Secret", "hf-holdfast-encryption")["data"] != secret["data"]
    assert "hf-holdfast-encryption" in json.dumps(defaults.pod("StatefulSet"))
    assert "encryption" not in json.dumps(defaults.one("DaemonSet"))


def test_certificates_name_the_service_and_share_one_authority(defaults, tmp_path):
    server, agent = (defaults.one("Secret", f"hf-holdfast-{n}")["data"] for n in ("tls", "agent-tls"))
    assert server["ca.crt"] == agent["ca.crt"]
    assert server["tls.key"] != agent["tls.key"]
    for name, data in (("server", server), ("agent", agent)):
        for file in ("ca.crt", "tls.crt"):
            (tmp_path / f"{name}.{file}").write_bytes(base64.b64decode(data[file]))
    host = defaults.settings("agent")["coordinator"]["url"].removeprefix("https://").removesuffix(":7270")
    for name, purpose in (("server", ["-purpose", "sslserver", "-verify_hostname", host]), ("agent", ["-purpose", "sslclient"])):
        done = subprocess.run(["openssl", "verify", "-CAfile", f"{name}.ca.crt", *purpose, f"{name}.tls.crt"],
                              cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_client_certificates_where_they_are_required():
    rendered = render({"tls": {"requireClientCertificate": True}})
    assert rendered.settings("coordinator")["grpc"]["tls_client_ca"] == "/etc/holdfast/tls/ca.crt"
    assert {"tls_ca", "tls_cert", "tls_key"} <= set(rendered.settings("agent")["coordinator"])
    assert "Pod" not in rendered.kinds()


def test_monitors_follow_the_cluster_or_the_word_of_the_user(defaults):
    monitors = {"PodMonitor", "ServiceMonitor"}
    assert not monitors & defaults.kinds()
    assert monitors <= render({}, *MONITORING).kinds()
    assert monitors <= render(MATRIX["forced monitors"][0]).kinds()
    assert not monitors & render({"metrics": {"enabled": False}}, *MONITORING).kinds()
    rendered = render({}, *MONITORING)
    selector = rendered.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    services = [o for o in rendered if o["kind"] == "Service"]
    assert [s["metadata"]["name"] for s in services if selector <= s["metadata"]["labels"].items()] == ["hf-holdfast-coordinator"]


def test_network_policies(defaults):
    agent = defaults.one("NetworkPolicy", "hf-holdfast-agent")["spec"]
    assert set(agent["policyTypes"]) == {"Ingress", "Egress"}
    assert [[p["port"] for p in rule["ports"]] for rule in agent["egress"]] == [[7270], [53, 53]]
    to = agent["egress"][0]["to"]
    labels = defaults.one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert len(to) == 1 and to[0]["podSelector"]["matchLabels"].items() <= labels.items()
    ports = [rule["ports"][0]["port"] for rule in defaults.one("NetworkPolicy", "hf-holdfast-coordinator")["spec"]["ingress"]]
    assert ports == [7270, 7271]


def test_the_test_asks_through_the_service(defaults):
    pod = defaults.one("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    image = container(defaults.pod("StatefulSet"), "coordinator")["image"]
    url = defaults.settings("agent")["coordinator"]["url"]
    for found in pod["spec"]["containers"]:
        assert found["image"] == image
        assert {"name": "HOLDFAST_COORDINATOR", "value": url} in found["env"]


def test_installed_seccomp_profile_is_where_the_container_looks_for_it():
    rendered = render({"agent": {"kubeletRoot": "/k", "seccompProfile": {
        "type": "Localhost", "localhostProfile": "a/b.json", "install": {"image": "busybox:1"}}}})
    pod = rendered.pod("DaemonSet")
    agent = container(pod, "agent")["securityContext"]["seccompProfile"]
    assert agent == {"type": "Localhost", "localhostProfile": "a/b.json"}
    install = pod["initContainers"][0]
    assert install["command"][-1] == "/seccomp/b.json"
    assert install["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    paths = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    assert paths["seccomp-dir"] == "/k/seccomp/a"
    stored = json.loads(rendered.one("ConfigMap", "hf-holdfast-agent-seccomp")["data"]["holdfast-agent.json"])
    assert stored == json.loads((ROOT / "deploy/seccomp/holdfast-agent.json").read_text())


def test_notes_say_how_to_keep_the_key_and_how_to_look(tmp_path):
    # `template` leaves the notes out: here they are rendered as a text of an object.
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    notes = (copy / "templates/NOTES.txt").read_text()
    (copy / "templates/NOTES.txt").unlink()
    (copy / "templates/notes.yaml").write_text(
        '{{- define "notes" }}' + notes + '{{ end }}\nkind: Notes\nmetadata: {name: x}\ntext: {{ include "notes" . | quote }}\n')
    done = helm("template", "hf", str(copy), "--namespace", "holdfast", "--show-only", "templates/notes.yaml", values={})
    assert done.returncode == 0, done.stderr
    text = yaml.safe_load(done.stdout)["text"]
    for part in ("KEEP A COPY OF THE PASSPHRASE", '{{ index .data "passphrase" | base64decode }}', "rollout status",
                 "helm -n holdfast test hf", "THE BACKUPS ARE KEPT ON A VOLUME OF THIS CLUSTER"):
        assert part in text, text


def test_an_upgrade_keeps_passphrase_and_certificates(defaults):
    kept = [o for o in defaults if o["kind"] == "Secret"]
    with cluster(kept) as url:
        again = render({}, "--dry-run=server", "--kube-apiserver", url)
        assert [o["data"] for o in again if o["kind"] == "Secret"] == [o["data"] for o in kept]
        assert again.one("DaemonSet") == defaults.one("DaemonSet")
    # One of the two certificates is gone: its authority's key is kept nowhere, so both are made again.
    with cluster([o for o in kept if o["metadata"]["name"] != "hf-holdfast-agent-tls"]) as url:
        again = render({}, "--dry-run=server", "--kube-apiserver", url)
        for secret in kept:
            now = again.one("Secret", secret["metadata"]["name"])["data"]
            assert (now == secret["data"]) == ("passphrase" in now)
