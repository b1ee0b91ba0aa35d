"""Makes the modules of this directory importable; says plainly when helm is missing."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import chart  # noqa: E402


def pytest_sessionstart():
    if not chart.helm_path():
        pytest.exit("helm is not installed: run scripts/test-deps.sh", returncode=1)
