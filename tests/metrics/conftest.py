"""Judges loaded once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.judges.loading import load_judges
from tests.metrics.judge_makers import write_embedded_judges


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedded_judges(tmp_path_factory.mktemp("embedded"))


@pytest.fixture(scope="session")
def tiny_sources(embedded: Path) -> dict[str, str]:
    return {kind: str(embedded / "judges" / kind) for kind in ("tiny-dino", "tiny-clip")}


@pytest.fixture(scope="session")
def judges(tiny_sources: dict[str, str]) -> Judges:
    return load_judges("tiny", sources=tiny_sources, offline=True)
