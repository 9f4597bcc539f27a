"""A teacher's predictions are stored before a run begins: killed in the middle of that, the run ends the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.reliability.conftest import RUN
from tests.reliability.processes import ForkServer, weights_hash
from tests.reliability.sabotage import KILLED

JOB = [
    *("train", "--subject", "dog", "--method", "full", "--steps", 4, "--set=train.checkpoint_every=2"),
    *("--set=prior.source=teacher", "--set=prior.teacher_draws=2", "--set=prior.images=2", "--set=prior.steps=1"),
    *("--set=train.learning_rate=0.001", "--set=draw.steps=2"),
]
STORE = {"function": "dbcli.workflows.training.teacher.stored_predictions"}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_while_predictions_are_stored(
    server: ForkServer, new_project: Callable[[], Path], figures: Callable[[str], None], every: int
) -> None:
    whole = new_project()
    counted = whole.parent / "counted"
    server.run(whole, *JOB, die_in={**STORE, "counted": str(counted)}).check(0)
    expected, boundaries = weights_hash(whole / "runs" / RUN), int(counted.read_text())
    deaths = [(at, half) for at in range(1, boundaries + 1) for half in (False, True)][::every]

    def die(death: tuple[int, bool]) -> bool:
        at, half = death
        project = new_project()
        server.run(project, *JOB, die_in={**STORE, "at": at, "half": half}).check(KILLED)
        server.run(project, "train", "--resume").check(0)
        left = [path for path in (project / "reg").rglob("*") if path.name.endswith(".tmp")]
        same = weights_hash(project / "runs" / RUN) == expected and not left
        shutil.rmtree(project)
        return same

    with ThreadPoolExecutor(max_workers=2) as pool:
        sound = sum(pool.map(die, deaths))
    figures(f"{len(deaths)} deaths over {boundaries} file operations; {sound} resumed and ended sha256-equal")
    assert boundaries > 8 and sound == len(deaths)
