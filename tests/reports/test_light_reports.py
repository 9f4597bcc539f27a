"""Reports load matplotlib and jinja2 when they draw, and torch never."""

from __future__ import annotations

import subprocess
import sys


def test_importing_reports_loads_no_heavy_library() -> None:
    modules = "dbcli.reports.grids, dbcli.reports.charts, dbcli.reports.tables, dbcli.reports.page"
    heavy = "('torch', 'numpy', 'matplotlib', 'jinja2')"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
