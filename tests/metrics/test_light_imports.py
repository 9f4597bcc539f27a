"""What the command line may import without waiting for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["dbcli.metrics", "dbcli.metrics.suites", "dbcli.metrics.dataset", "dbcli.metrics.choice"]
)
def test_suites_load_no_heavy_library(module: str) -> None:
    heavy = "('torch', 'numpy', 'timm', 'open_clip', 'transformers')"
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
