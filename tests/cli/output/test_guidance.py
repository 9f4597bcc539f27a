"""What guides a person: the state of the project, proposals, and the doctor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_alone_outside_a_project_it_says_how_to_begin(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run()
    assert ended.code == 0
    assert "dreambooth demo" in ended.out
    assert "dreambooth init" in ended.out


def test_alone_in_a_project_it_says_where_one_stands_and_the_next_command(run: Run, trained_project: Path) -> None:
    document = run("--json").document
    assert document["newest_finished"] == "0001-dog"
    assert document["next"][0]["command"].startswith("dreambooth generate")


def test_alone_in_a_new_project_it_proposes_to_train(run: Run, project: Path) -> None:
    told = run()
    assert "dog: 3 photos of a dog" in told.out
    assert "dreambooth train --subject dog --token mwf" in told.out


def test_a_named_folder_that_is_no_project_is_an_error(run: Run, tmp_path: Path) -> None:
    assert run("-C", tmp_path).code == 2


def test_every_proposed_command_is_one_that_parses(run: Run, trained_project: Path) -> None:
    for step in run("--json").document["next"]:
        words = step["command"].split()
        assert words[0] == "dreambooth"
        assert run(words[1], "--help").code == 0


def test_init_writes_the_profile_it_proposes(run: Run, tmp_path: Path, base_folder: Path) -> None:
    assert run("init", tmp_path / "a", "--base", base_folder, "--no-gpu", "--json").document["profile"] == "lora"
    assert "profile: lora" in (tmp_path / "a" / "dreambooth.yaml").read_text()
    assert run("init", tmp_path / "b", "--base", "tiny", "--yes", "--json").document["profile"] == "tiny"
    assert run("init", tmp_path / "c", "--base", base_folder, "--json").document["profile"] is None


def test_add_subject_tells_the_photos_faults_and_where_the_crops_are(run: Run, project: Path, photos: Path) -> None:
    told = run("add-subject", "cat", "--class", "cat", photos, "--json").document
    small = next(one for one in told["faults"] if one["kind"] == "too-small")
    assert small["photos"] == ["dog00.jpg", "dog01.jpg", "dog02.jpg"]
    assert Path(told["contact_sheet"]).is_file()


def test_add_subject_names_what_is_missing(run: Run, project: Path) -> None:
    assert "NAME is missing" in run("add-subject").err
    assert "PHOTO is missing" in run("add-subject", "cat").err


def checks(run: Run, *words: object) -> tuple[int, dict[str, Any]]:
    ended = run("doctor", "--offline", "--json", *words)
    return ended.code, {one["name"]: one for one in ended.document["checks"]}


def test_the_doctor_looks_at_the_machine_without_a_project(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = checks(run)[1]
    assert {"program", "libraries", "device", "memory", "disk", "hub", "judges tiny", "extras"} <= found.keys()
    assert "torch" in found["libraries"]["found"]
    assert found["hub"]["found"] == "not checked: offline"


def test_what_installs_the_rest_brings_the_judge_of_faces_too(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dbcli.metrics.judges.faces.missing_packages", lambda: ["dlib-bin", "face-recognition-models"])
    fix = checks(run)[1]["extras"]["fix"]
    assert "dlib-bin face-recognition-models installs the rest" in fix
    assert fix.endswith("faces")


def test_every_check_that_is_not_good_has_a_fix(run: Run, project: Path) -> None:
    ended = run("doctor", "--offline", "--json").document
    assert all(one["fix"] for one in ended["checks"] if one["verdict"] == "fault")


def test_the_doctor_finds_what_changed_on_disk(run: Run, trained_project: Path) -> None:
    sound = checks(run)[1]
    assert sound["run"]["verdict"] == sound["subject"]["verdict"] == sound["class images"]["verdict"] == "good"
    photo = trained_project / "subjects" / "dog" / "photos" / "0001.png"
    photo.write_bytes(photo.read_bytes() + b"\0")
    weights = next((trained_project / "runs" / "0001-dog" / "weights" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    # One set a sentence: every one of them has lost an image.
    for one_set in (trained_project / "reg").glob("dog-*"):
        next(one_set.glob("*.png")).write_bytes(b"")
    code, found = checks(run)
    assert code in (3, 5)
    assert found["subject"]["verdict"] == "fault" and "0001.png" in found["subject"]["found"]
    assert found["run"]["verdict"] == "fault" and "safetensors" in found["run"]["found"]
    assert found["class images"]["verdict"] == "note"


def test_a_killed_run_is_told_from_one_that_trains(run: Run, trained_project: Path) -> None:
    record = trained_project / "runs" / "0001-dog" / "run.json"
    record.write_text(record.read_text().replace('"finished"', '"running"', 1))
    found = checks(run)[1]["run"]
    assert "was killed" in found["found"]
    assert found["fix"] == "dreambooth train --resume 0001-dog"


def test_the_doctor_changes_nothing(run: Run, trained_project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained_project.rglob("*") if path.is_file()}
    checks(run)
    assert {path: path.stat().st_mtime_ns for path in trained_project.rglob("*") if path.is_file()} == before


def test_a_doctor_survives_what_it_finds(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dbcli.workflows.doctor.machine as doctor

    def broken() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(doctor, "_memory", broken)
    code, found = checks(run)
    assert code == 5
    assert "planted" in found["memory"]["found"]
