"""Makes the modules of this directory importable; says plainly when a tool is missing."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import chart  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def tools(request):
    if not chart.helm_path() and any("chart" in item.nodeid for item in request.session.items):
        pytest.exit("helm is not installed: run scripts/test-deps.sh", returncode=1)
