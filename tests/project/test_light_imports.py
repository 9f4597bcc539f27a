from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import dbcli.project

ROOT = Path(__file__).resolve().parents[2]


def test_the_room_needs_neither_torch_nor_numpy_nor_pillow_to_be_imported() -> None:
    names = sorted(found.name for found in pkgutil.walk_packages(dbcli.project.__path__, "dbcli.project."))
    assert len(names) > 30
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        + "".join(f"import {name}\n" for name in names)
        + "print(*sorted({'torch', 'numpy', 'PIL', 'safetensors', 'platformdirs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
