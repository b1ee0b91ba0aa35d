"""The image: the same input is the same image; run by an engine, it does its work with the chart's privileges alone."""

import ctypes
import importlib.util
import io
import json
import os
import tarfile
import time

import pytest

from chart import ROOT, render
from engine import VERSION, Containers, engine_and_image, run

SPEC = importlib.util.spec_from_file_location("image", ROOT / "scripts/image.py")
packing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(packing)
LIMIT_BYTES = 80_000_000


@pytest.fixture
def root(tmp_path):
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/holdfast").write_text("holdfast")
    (tmp_path / "usr/bin/holdfast").chmod(0o700)
    (tmp_path / "usr/bin/holdfast-agent").symlink_to("holdfast")
    (tmp_path / "LICENSE").write_text("text")
    return tmp_path


def test_same_input_same_bytes(root):
    one = packing.image(root, "1.2.3", 1_700_000_000, "x86_64", "abc")
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    (root / "LICENSE").chmod(0o600)
    assert packing.image(root, "1.2.3", 1_700_000_000, "x86_64", "abc") == one
    (root / "LICENSE").write_text("other")
    assert packing.image(root, "1.2.3", 1_700_000_000, "x86_64", "abc")[1] != one[1]


def test_what_is_packed(root):
    archive, digest, _ = packing.image(root, "1.2.3", 1_700_000_000, "aarch64", "abc")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(manifest["Config"]))
        layer = tar.extractfile(manifest["Layers"][0]).read()
    assert manifest["Config"] == digest.removeprefix("sha256:") + ".json"
    assert manifest["RepoTags"] == ["holdfast:1.2.3"]
    assert config["architecture"] == "arm64"
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == "abc"
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entries = [(m.name, m.mode, m.uid, m.gid, m.mtime) for m in tar]
        assert tar.getmember("usr/bin/holdfast-agent").linkname == "holdfast"
    at = 1_700_000_000
    assert entries == [
        ("LICENSE", 0o644, 0, 0, at),
        ("usr", 0o755, 0, 0, at),
        ("usr/bin", 0o755, 0, 0, at),
        ("usr/bin/holdfast", 0o755, 0, 0, at),
        ("usr/bin/holdfast-agent", 0o777, 0, 0, at),
    ]


def test_too_large_is_refused(root):
    with open(root / "large", "wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    with pytest.raises(SystemExit, match="more than the 80000000"):
        packing.image(root, "1.2.3", 0, "x86_64")


@pytest.fixture
def containers():
    found = Containers(*engine_and_image())
    yield found
    found.remove()


def test_nothing_but_the_programs_is_in_it(containers, tmp_path):
    created = run(containers.engine, "create", containers.image).stdout.strip()
    containers.started.append(created)
    run(containers.engine, "export", "--output", str(tmp_path / "fs.tar"), created)
    with tarfile.open(tmp_path / "fs.tar") as tar:
        links = {m.name: m.linkname for m in tar if m.issym() and m.name.startswith("usr/")}
        files = {m.name: m.size for m in tar if m.isfile()}
        sbom = json.load(tar.extractfile("sbom.json"))
    # What the engine puts into every container.
    files = {n: s for n, s in files.items() if not n.startswith("dev/") and n not in (".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf")}
    extra = set(os.environ.get("HOLDFAST_TEST_IMAGE_EXTRA", "").split())
    assert set(files) - extra == {
        "LICENSE", "sbom.json", "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/holdfast",
    }
    assert links == {f"usr/bin/holdfast-{name}": "holdfast" for name in ("agent", "coordinator")}
    assert sum(files.values()) <= LIMIT_BYTES
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    assert {"tokio", "rustls", "holdfast-agent"} <= {c["name"] for c in sbom["components"]}


def test_labels_and_versions(containers):
    inspected = json.loads(run(containers.engine, "image", "inspect", containers.image).stdout)[0]
    labels = inspected["Config"]["Labels"]
    for key in ("title", "version", "licenses", "created", "description"):
        assert labels[f"org.opencontainers.image.{key}"]
    assert labels["org.opencontainers.image.version"] == VERSION
    for program in ("holdfast", "holdfast-agent", "holdfast-coordinator"):
        out = containers.once(program, "--version", options=["--network", "none", "--read-only", "--user", "65532"])
        assert out.stdout.split() == [program, VERSION]


def landlock():
    """Whether this kernel has it, in the version that is needed."""
    create_ruleset, version = 444, 1
    return ctypes.CDLL(None).syscall(create_ruleset, None, 0, version) >= 2


def chart_options(seccomp):
    """The chart's security context of the agent, as the engine spells it."""
    context = render().pod("DaemonSet")["containers"][0]["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"] and not context["privileged"]
    options = ["--read-only", "--security-opt", "no-new-privileges", "--user", f"{context['runAsUser']}:{context['runAsGroup']}"]
    for what in ("drop", "add"):
        for name in context["capabilities"][what]:
            options += [f"--cap-{what}", name]
    if seccomp == "Localhost":
        options += ["--security-opt", f"seccomp={ROOT / 'deploy/seccomp/holdfast-agent.json'}"]
    return options


class Node:
    """A coordinator, and an agent that serves one directory, with the chart's privileges."""

    def __init__(self, containers, tmp_path):
        if os.geteuid() != 0:
            pytest.skip("needs root, to make files of other owners")
        self.containers, self.dir = containers, tmp_path
        for name in ("repository", "keys", "coordinator", "agent"):
            (tmp_path / name).mkdir(mode=0o700)
        for name in ("repository", "keys", "coordinator"):
            os.chown(tmp_path / name, 65532, 65532)
        mounts = [o for name in ("repository", "keys", "coordinator") for o in ("--volume", f"{tmp_path / name}:/{name}")]
        self.confined = ["--user", "65532:65532", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        variables = {"REPOSITORY_URL": "/repository/r", "REPOSITORY_KEY_FILE": "/keys/key", "STATE_DIR": "/coordinator"}
        options = ["--network", "none", *self.confined, *mounts]
        containers.once("holdfast", "init", "--repo=/repository/r", "--key-file=/keys/key", "--state-dir=/coordinator", options=options)
        options += [o for name, value in variables.items() for o in ("--env", f"HOLDFAST_{name}={value}")]
        containers.once("holdfast-coordinator", "rebuild", options=options)
        self.coordinator = containers.start("holdfast-coordinator", options=options)
        # One loopback for all: plaintext goes no further.
        self.beside = ["--network", f"container:{self.coordinator}"]

    def serve(self, volume, options, mount):
        self.agent = self.containers.start("holdfast-agent", options=[
            *self.beside, *options, "--volume", mount, "--volume", f"{self.dir / 'agent'}:/state",
            "--env", "HOLDFAST_COORDINATOR_URL=http://127.0.0.1:7270", "--env", "HOLDFAST_STATE_DIR=/state",
            "--env", f"HOLDFAST_VOLUMES_PATHS=web={volume}", "--env", "HOLDFAST_AGENT_NODE=node-1",
            # As the chart has it: no restores; with it the agent restricts itself.
            "--env", "HOLDFAST_RESTORE_BELOW=/var/empty"])
        self.until("the agent does not serve the volume", lambda out: '"agent": "node-1"' in out)

    def holdfast(self, *args, check=True):
        return self.containers.once("holdfast", *args, "--coordinator", "http://127.0.0.1:7270",
                                    options=[*self.beside, *self.confined], check=check)

    def until(self, what, done):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = self.holdfast("volumes", "-o", "json", check=False)
            if answer.returncode == 0 and done(answer.stdout):
                return
            time.sleep(0.2)
        pytest.fail(f"{what}: {answer.stdout}{self.containers.logs(self.coordinator)}{self.containers.logs(self.agent)}")

    def watches(self):
        """Kinds of the descriptors that the agent has, as the host sees them."""
        pid = run(self.containers.engine, "inspect", "--format", "{{.State.Pid}}", self.agent).stdout.strip()
        return " ".join(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))


# Profile, a capability that is taken away, what changes come through, and how a backup ends: 3 is "stored, but incomplete".
@pytest.mark.parametrize("seccomp, without, journal, ends", [
    ("Localhost", None, "[fanotify]", 0),
    ("RuntimeDefault", None, "inotify", 0),
    ("Localhost", "DAC_READ_SEARCH", None, 3),
])
def test_agent_reads_what_others_own(containers, tmp_path, seccomp, without, journal, ends):
    node = Node(containers, tmp_path)
    volume = tmp_path / "volume"
    (volume / "closed").mkdir(parents=True)
    secret = volume / "closed/secret"
    secret.write_text("of another owner\n")
    for path, mode in ((secret, 0o600), (volume / "closed", 0o700), (volume, 0o755)):
        path.chmod(mode)
        os.chown(path, 1000, 1000)
    options = chart_options(seccomp)
    if without:
        at = options.index(without)
        del options[at - 1:at + 1]
    node.serve(volume, options, f"{volume}:{volume}:ro")
    if landlock():
        assert "restricted by Landlock" in containers.logs(node.agent)

    backup = node.holdfast("backup", "web", check=False)
    assert backup.returncode == ends, backup.stdout + backup.stderr + containers.logs(node.agent)
    if ends == 0:
        assert node.holdfast("cat", "web@latest:/closed/secret").stdout == "of another owner\n"
        node.until("the journal is not trusted", lambda out: '"journal": "trusted"' in out)
        assert journal in node.watches()
        # A deletion and a change, learnt from the kernel: no walk.
        secret.unlink()
        (volume / "closed/later").write_text("later\n")
        assert node.holdfast("backup", "web").returncode == 0
        assert "secret" not in node.holdfast("ls", "-R", "web@latest").stdout
        assert node.holdfast("cat", "web@latest:/closed/later").stdout == "later\n"
        assert '"walk":"no"' in containers.logs(node.agent).splitlines()[-1]


def test_a_volume_that_is_mounted_later_is_seen(containers, tmp_path):
    """HostToContainer, as an engine spells it, is rslave."""
    node = Node(containers, tmp_path)
    pods = tmp_path / "pods"
    late = pods / "late"
    late.mkdir(parents=True)
    if run("mount", "--bind", pods, pods, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        run("mount", "--make-shared", pods)
        node.serve(late, chart_options("RuntimeDefault"), f"{pods}:{pods}:ro,rslave")
        run("mount", "-t", "tmpfs", "tmpfs", late)
        (late / "file").write_text("on the mounted volume\n")
        node.holdfast("backup", "web")
        assert node.holdfast("cat", "web@latest:/file").stdout == "on the mounted volume\n"
    finally:
        containers.remove()
        run("umount", "--recursive", pods)
