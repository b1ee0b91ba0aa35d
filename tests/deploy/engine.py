"""A container engine, where there is one, and the image in it."""

import os
import re
import shutil
import subprocess
import uuid

import pytest

from chart import ROOT

VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)


def run(*args, check=True):
    done = subprocess.run(args, capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"{' '.join(args)}: {done.stderr}"
    return done


def engine_and_image():
    """Skips, saying what is missing: neither can be had everywhere."""
    engine = shutil.which("docker") or shutil.which("podman")
    if not engine:
        pytest.skip("neither docker nor podman is installed: the image is not tried")
    if run(engine, "info", check=False).returncode != 0:
        pytest.skip(f"{engine} is installed but does not answer: the image is not tried")
    image = os.environ.get("HOLDFAST_TEST_IMAGE", f"holdfast:{VERSION}")
    if run(engine, "image", "inspect", image, check=False).returncode != 0:
        pytest.skip(f"{engine} has no image {image}: build it with `make image`")
    return engine, image


class Containers:
    """Containers of one test; removed at its end."""

    def __init__(self, engine, image):
        self.engine, self.image, self.started = engine, image, []

    def arguments(self, program, args, options):
        return ["run", *options, "--entrypoint", f"/usr/bin/{program}", self.image, *args]

    def start(self, program, *args, options=()):
        # Named by us: one that could not be started is there as well.
        name = f"holdfast-test-{uuid.uuid4().hex[:12]}"
        self.started.append(name)
        run(self.engine, *self.arguments(program, args, ["--detach", "--name", name, *options]))
        return name

    def once(self, program, *args, options=(), check=True):
        return run(self.engine, *self.arguments(program, args, ["--rm", *options]), check=check)

    def logs(self, container):
        done = run(self.engine, "logs", container)
        return done.stdout + done.stderr

    def remove(self):
        for found in reversed(self.started):
            run(self.engine, "rm", "--force", found, check=False)
