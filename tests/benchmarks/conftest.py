"""The scripts of `benchmarks/` as modules, and the smallest base to run them on."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.reliability.small_base import write_small_base

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Loads a script by its name, once."""

    def load(name: str) -> ModuleType:
        if f"benchmarks_{name}" not in sys.modules:
            specification = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
            assert specification is not None and specification.loader is not None
            module = importlib.util.module_from_spec(specification)
            sys.modules[f"benchmarks_{name}"] = module  # dataclasses look their module up
            specification.loader.exec_module(module)
        return sys.modules[f"benchmarks_{name}"]

    return load


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base") / "small")
