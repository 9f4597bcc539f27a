"""Several processes in one project: one writer, and the others are told who it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.conftest import JOB, RUN
from tests.reliability.processes import ROOT, ForkServer, record, weights_hash

# A busy machine is no fault: what would hang for ever is found by the processes' own limit.
pytestmark = pytest.mark.timeout(1800)
SWEEP = """
name: {name}
method: lora
judge: tiny
subject: dog
settings: {{train: {{steps: 1}}, prior: {{images: 3, steps: 2}}, draw: {{steps: 2}}}}
pictures: {{prompts: ["a {{identifier}} {{class}} at night"], count: 1, seed: 0}}
grid:
  train.seed: [{seed}]
"""
NewProject = Callable[[], Path]
Figures = Callable[[str], None]


def test_of_eight_processes_on_one_run_one_works_and_seven_exit_6(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], figures: Figures
) -> None:
    project = new_project()
    server.run(project, *JOB, fail_at_step={"step": 3, "error": "gpu"}).check(5)
    lock = project / "runs" / RUN / ".lock.holder.json"
    first = server.start(project, "train", "--resume", "1", hold_at_step={"step": 4, "until": str(project / "go")})
    assert first.wait_until(lambda: lock.exists() and record(project / "runs" / RUN)["state"] == "running")
    others = [server.start(project, "train", "--resume", "1") for _ in range(7)]
    ended = [one.wait().check(6) for one in others]
    assert all(f"process {first.pid} " in one.err for one in ended)
    # Readers wait for nobody.
    began = time.monotonic()
    for words in (["runs", "list"], ["runs", "show", "1"]):
        assert "running" in server.run(project, *words).check(0).out
    reading = time.monotonic() - began
    (project / "go").touch()
    first.wait().check(0)
    assert weights_hash(project / "runs" / RUN) == whole[0]
    figures(f"8 processes: 1 trained, 7 exited 6 naming it; two readers took {reading:.2f} s meanwhile")


def test_of_eight_processes_drawing_one_prior_set_one_draws(
    server: ForkServer, new_project: NewProject, figures: Figures
) -> None:
    project = new_project()
    words = ["reg", "make", "--class", "dog", "-n", 3, "--set=prior.steps=2"]
    hold = {"until": str(project / "go")}
    first = server.start(project, *words, hold_drawing=hold)
    assert first.wait_until(lambda: any(project.glob("reg/dog-*/.lock.holder.json")))
    ended = [server.start(project, *words) for _ in range(7)]
    codes = sorted(one.wait().check(0, 6).code for one in ended)
    (project / "go").touch()
    first.wait().check(0)
    assert codes == [6] * 7
    assert len(list(project.glob("reg/dog-*/*.png"))) == 3
    figures("8 processes: 1 drew the class images, 7 exited 6")


def test_a_sweep_waits_for_class_images_that_another_process_draws(
    server: ForkServer, new_project: NewProject, figures: Figures
) -> None:
    project = new_project()
    names = ("first", "second")
    for number, name in enumerate(names):
        (project / f"{name}.yaml").write_text(SWEEP.format(name=name, seed=number), encoding="utf-8")
    first = server.start(project, "sweep", "first.yaml", hold_drawing={"until": str(project / "go")})
    assert first.wait_until(lambda: any(project.glob("reg/dog-*/.lock.holder.json")))
    second = server.start(project, "sweep", "second.yaml")
    said = second.log.with_suffix(".err")
    assert second.wait_until(lambda: said.exists() and "waiting until" in said.read_text(errors="replace"))
    (project / "go").touch()
    for one in (first, second):
        one.wait().check(0)
    states = [
        json.loads((project / "sweeps" / name / "scores.json").read_text())["cells"][0]["state"] for name in names
    ]
    assert states == ["finished", "finished"]
    figures("2 sweeps that share class images: 1 drew them, 1 waited, both finished")


def test_eight_processes_start_eight_runs_of_their_own(
    server: ForkServer, new_project: NewProject, figures: Figures
) -> None:
    project = new_project()
    words = ["train", "--subject", "dog", "--method", "lora", "--steps", 1, "--set=prior.enabled=false"]
    began = [server.start(project, *words) for _ in range(8)]
    for one in began:
        one.wait().check(0)
    runs = sorted(path.name for path in (project / "runs").iterdir() if not path.name.startswith("."))
    assert runs == [f"{number:04d}-dog" for number in range(1, 9)]
    assert {record(project / "runs" / run)["state"] for run in runs} == {"finished"}
    figures("8 processes made 8 runs, all finished")


# A process of its own, for the price of no import but that of the line's writer.
APPEND = """
import sys
from pathlib import Path
from dbcli.project.files.atomic import append_line
for number in range(1000):
    append_line(Path(sys.argv[1]), f"{sys.argv[2]} {number} " + "x" * (number % 300))
"""


def test_eight_processes_append_eight_thousand_whole_lines(tmp_path: Path, figures: Figures) -> None:
    path = tmp_path / "events.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(path), str(writer)], env=environment) for writer in range(8)
    ]
    assert [writer.wait() for writer in writers] == [0] * 8
    lines = path.read_text().splitlines()
    expected = {f"{writer} {number} " + "x" * (number % 300) for writer in range(8) for number in range(1000)}
    assert len(lines) == 8000 and set(lines) == expected
    figures(f"8 x 1,000 appends: {len(lines):,} whole lines")
