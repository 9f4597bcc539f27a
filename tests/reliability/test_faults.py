"""A number that is none, a full disk, a lost GPU, a folder one may not write: the last good state is always there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dbcli.project.files.manifests import first_fault
from tests.reliability.conftest import JOB, RUN, STEPS
from tests.reliability.processes import ForkServer, events, record, weights_hash

# A busy machine is no fault: what would hang for ever is found by the processes' own limit.
pytestmark = pytest.mark.timeout(1800)
NewProject = Callable[[], Path]
Figures = Callable[[str], None]
NEEDED_AND_FREE = re.compile(r"needs [\d,]+ bytes.*[\d,]+ (bytes )?are free|needs more space, [\d,]+ bytes are free")


def all_finite(run: Path) -> bool:
    files = [*run.rglob("checkpoints/step-*/*.safetensors"), *run.rglob("weights/**/*.safetensors")]
    return all(bool(torch.isfinite(tensor).all()) for file in files for tensor in load_file(file).values())


@pytest.mark.parametrize("weights", [False, True], ids=["the loss", "a weight"])
@pytest.mark.parametrize("step", [1, 3, STEPS], ids=["first", "middle", "last"])
def test_a_number_that_is_none_stops_the_run_and_is_never_kept(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], step: int, weights: bool
) -> None:
    project = new_project()
    server.run(project, *JOB, nan_at={"step": step, "weights": weights}).check(5)
    run = project / "runs" / RUN
    assert record(run)["state"] == "failed"
    assert all_finite(run)
    assert not (run / "weights").exists()
    # On a machine that counts right it goes on from what was kept.
    server.run(project, "train", "--resume").check(0)
    assert weights_hash(run) == whole[0]


@pytest.mark.parametrize("step", [1, 3, STEPS], ids=["first", "middle", "last"])
def test_with_lower_rate_the_run_goes_back_a_checkpoint_and_ends(
    server: ForkServer, new_project: NewProject, step: int
) -> None:
    project = new_project()
    words = [*JOB, "--set=train.on_divergence=lower-rate"]
    ended = server.run(project, *words, nan_at={"step": step, "only_at_full_rate": True}).check(0)
    run = project / "runs" / RUN
    back = next(event for event in events(run) if event.get("event") == "rolled back")
    assert (back["step"], back["rate_scale"]) == ((step - 1) // 2 * 2, 0.5)
    assert "0.5 of the learning rate" in ended.err
    rates = [event["lr"] for event in events(run) if "lr" in event]
    assert rates[-1] == pytest.approx(rates[0] / 2) or step == 1
    assert all_finite(run)


def test_a_run_that_lower_rates_do_not_help_fails_in_the_end(server: ForkServer, new_project: NewProject) -> None:
    project = new_project()
    server.run(project, *JOB, "--set=train.on_divergence=lower-rate", nan_at={"step": 3}).check(5)
    run = project / "runs" / RUN
    assert sum(event.get("event") == "rolled back" for event in events(run)) == 6
    assert record(run)["state"] == "failed"
    assert all_finite(run)


@pytest.mark.parametrize("error", ["memory", "gpu"])
def test_a_full_memory_and_a_lost_gpu_leave_a_run_that_goes_on(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], error: str
) -> None:
    project = new_project()
    server.run(project, *JOB, fail_at_step={"step": 4, "error": error}).check(5)
    assert record(project / "runs" / RUN)["state"] == "failed"
    server.run(project, "train", "--resume").check(0)
    found = record(project / "runs" / RUN)
    assert found["state"] == "finished"
    if error == "gpu":
        assert weights_hash(project / "runs" / RUN) == whole[0]
    else:
        # It went down every rung before it gave up, and goes on where it stands: a base in few bits, another recipe.
        rungs = ["LoRA, activations recomputed", "LoRA, 8-bit base", "LoRA, 4-bit base"]
        assert [one["after"] for one in found["fallbacks"]] == rungs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes, and changes its size when asked again. Needs the right to mount."""
    place = tmp_path / "disk"
    place.mkdir()

    def of_size(size_bytes: int) -> Path:
        is_there = os.path.ismount(place)
        option = f"size={size_bytes}" + (",remount" if is_there else "")
        words = ["mount", "-t", "tmpfs", "-o", option, "none", str(place)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode and not is_there:
            pytest.skip(f"this user may not mount a small disk: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return place

    yield of_size
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", str(place)], check=True)


def used_bytes(place: Path) -> int:
    return shutil.disk_usage(place).used


@pytest.mark.parametrize("sizes", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_anywhere_is_exit_5_and_nothing_is_lost(
    server: ForkServer,
    new_project: NewProject,
    whole: tuple[str, float],
    small_disk: Callable[[int], Path],
    figures: Figures,
    sizes: int,
) -> None:
    disk = small_disk(200_000_000)
    project = Path(shutil.copytree(new_project(), disk / "project"))
    start = used_bytes(disk)
    server.run(project, *JOB).check(0)
    room = used_bytes(disk) - start
    full, fitted = 0, 0
    for number in range(sizes):
        shutil.rmtree(project)
        small_disk(200_000_000)
        shutil.copytree(new_project(), project)
        small_disk(start + 8192 + room * number // sizes)
        ended = server.run(project, *JOB).check(0, 5)
        full, fitted = full + (ended.code == 5), fitted + (ended.code == 0)
        run = project / "runs" / RUN
        if ended.code == 5:
            assert NEEDED_AND_FREE.search(ended.err.replace("\n", " ")), ended.err
            assert all(first_fault(folder) is None for folder in run.glob("checkpoints/step-*"))
            assert not (run / "weights").exists()
            small_disk(200_000_000)
            begun = (run / "run.json").exists()
            server.run(project, *(["train", "--resume", "1"] if begun else JOB)).check(0)
        assert weights_hash(run) == whole[0]
    figures(f"{sizes} disk sizes for a run of {room:,} bytes: {full} exit 5, {fitted} fitted; all ended sha256-equal")
    assert full


def test_a_folder_that_may_not_be_written_is_exit_5(
    server: ForkServer, new_project: NewProject, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(50_000_000)
    project = Path(shutil.copytree(new_project(), disk / "project"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for words in (JOB, ["reg", "make", "--class", "dog"], ["add-subject", "cat", "--class", "cat", project]):
        ended = server.run(project, *words).check(5)
        assert "permission" in ended.err.lower()


def test_a_run_record_with_faults_names_itself(server: ForkServer, new_project: NewProject) -> None:
    project = new_project()
    server.run(project, *JOB, fail_at_step={"step": 1, "error": "gpu"}).check(5)
    path = project / "runs" / RUN / "run.json"
    table = json.loads(path.read_text())
    table["profile"]["train"]["steps"] = "many"
    path.write_text(json.dumps(table))
    ended = server.run(project, "train", "--resume", "1").check(3)
    assert "runs/0001-dog/run.json" in ended.err and "train.steps" in ended.err
