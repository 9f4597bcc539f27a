"""A run's numbers in other programs' logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dbcli.errors import UsageError
from dbcli.hints import installing
from dbcli.project.files.layout import Layout
from dbcli.workflows.progress import Silence
from dbcli.workflows.training import metric_loggers as logs


class Kept:
    """A log that remembers."""

    written: list[tuple[int, dict[str, float]]] = []
    closed = 0

    def __init__(self, folder: Path, run: str, offline: bool) -> None:
        Kept.written, Kept.closed = [], 0
        self.folder = folder

    def write(self, step: int, values: Mapping[str, float]) -> None:
        Kept.written.append((step, dict(values)))

    def close(self) -> None:
        Kept.closed += 1


def test_every_measured_step_is_written_and_the_log_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "check_logs", lambda names: list(names))
    monkeypatch.setitem(logs.OPENERS, "tensorboard", Kept)
    with logs.logged(Silence(), Layout(tmp_path), ["tensorboard"], offline=True) as progress:
        with progress.stage("Training", 2) as stage:
            stage.measure("0001-dog", 1, {"loss": 0.5})
            stage.measure("0001-dog", 2, {"loss": 0.25})
        assert Kept.closed == 0
    assert Kept.written == [(1, {"loss": 0.5}), (2, {"loss": 0.25})]
    assert Kept.closed == 1


@pytest.mark.parametrize("failing", ["__init__", "write", "close"])
def test_a_log_that_fails_is_a_warning_and_is_left_alone_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*arguments: object) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(logs, "check_logs", lambda names: list(names))
    monkeypatch.setitem(logs.OPENERS, "wandb", type("Failing", (Kept,), {failing: fail}))
    monkeypatch.setitem(logs.OPENERS, "tensorboard", type("Sound", (Kept,), {}))
    silence = Silence()
    names = ["wandb", "tensorboard"]
    with logs.logged(silence, Layout(tmp_path), names, offline=True) as progress, progress.stage("", 2) as stage:
        for step in (1, 2):
            stage.measure("0001-dog", step, {"loss": 0.5})
    assert len(silence.warnings) == 1
    assert "Logging to wandb failed" in silence.warnings[0] and "the server is gone" in silence.warnings[0]
    assert (2, {"loss": 0.5}) in Kept.written


def test_without_a_log_the_progress_is_passed_through(tmp_path: Path) -> None:
    progress = Silence()
    with logs.logged(progress, Layout(tmp_path), [], offline=True) as passed:
        assert passed is progress


def test_an_unknown_log_and_a_missing_package_are_told_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no log 'excel'"):
        logs.check_logs(["excel"])
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as told:
        logs.check_logs(["wandb"])
    assert told.value.hint == installing("wandb")


def test_tensorboard_files_can_be_read_back(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "runs" / "0001-dog").mkdir(parents=True)
    with (
        logs.logged(Silence(), Layout(tmp_path), ["tensorboard"], offline=True) as progress,
        progress.stage("Training", 1) as stage,
    ):
        stage.measure("0001-dog", 1, {"loss": 0.5})
    found = events.EventAccumulator(str(tmp_path / "runs" / "0001-dog" / "logs" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 0.5)]
