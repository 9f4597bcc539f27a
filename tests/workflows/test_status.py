"""The next command, for every stage a project can be in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunBase, RunRecord, RunSubject, create_run
from dbcli.project.settings.project_settings import ProjectSettings, save_settings
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.sweeps.sweep_records import SweepRecord
from dbcli.workflows import demo
from dbcli.workflows.generation.generate import Generated
from dbcli.workflows.status import next_steps, where_one_stands


def subject(name: str, identifier: str | None = "sks") -> Subject:
    return Subject(name=name, class_noun="dog", identifier=identifier)


def run(
    number: int, state: str, name: str = "dog", method: str = "full", lora: Mapping[str, object] | None = None
) -> RunRecord:
    return RunRecord(
        name=f"{number:04d}-{name}",
        state=state,
        method=method,
        profile={"lora": dict(lora or {})},
        subjects=[RunSubject(name=name, class_noun="dog")],
        base=RunBase(name="tiny", source="tiny"),
        step=3,
        total_steps=9,
    )


def commands(
    *given: object,
    training: str | None = None,
    images: int = 0,
    suites: tuple[str, ...] = (),
    sweep: SweepRecord | None = None,
) -> list[str]:
    subjects = [one for one in given if isinstance(one, Subject)]
    runs = [one for one in given if isinstance(one, RunRecord)]
    return [step.command for step in next_steps(subjects, runs, training, images, suites, {"dog": "mwf"}, sweep)]


def test_an_empty_project_needs_photos() -> None:
    assert commands() == ["dreambooth add-subject"]


def test_a_new_subject_is_taught_and_asked_for_its_word_only_where_it_has_none() -> None:
    assert commands(subject("dog")) == ["dreambooth train --subject dog"]
    assert commands(subject("dog", None)) == ["dreambooth train --subject dog --token mwf"]


def test_an_unfinished_run_goes_on_first() -> None:
    assert commands(subject("dog"), run(1, "interrupted"))[0] == "dreambooth train --resume 0001-dog"


STOPPED = SweepRecord(name="bench-tiny", command="dreambooth bench -n 1", state="interrupted", cells=3, finished=1)


def test_a_stopped_sweep_goes_on_and_not_the_run_that_it_was_at() -> None:
    of_sweep = run(1, "interrupted").model_copy(update={"work_key": "abc"})
    assert commands(subject("dog"), of_sweep, sweep=STOPPED)[0] == "dreambooth bench -n 1"
    assert "dreambooth train --resume 0001-dog" not in commands(subject("dog"), of_sweep, sweep=STOPPED)


def test_a_sweep_stopped_between_its_runs_goes_on_too() -> None:
    assert commands(subject("dog"), run(1, "finished"), sweep=STOPPED)[0] == "dreambooth bench -n 1"


def test_a_run_of_its_own_goes_on_before_a_stopped_sweep() -> None:
    both = commands(subject("dog"), run(1, "interrupted"), sweep=STOPPED)
    assert both[:2] == ["dreambooth train --resume 0001-dog", "dreambooth bench -n 1"]


def test_an_old_failure_before_a_finished_run_is_left_alone() -> None:
    assert commands(subject("dog"), run(1, "failed"), run(2, "finished"))[0].startswith("dreambooth generate")


def test_while_a_run_trains_only_looking_at_it_is_proposed() -> None:
    assert commands(subject("dog"), run(1, "running"), training="0001-dog") == ["dreambooth runs show 0001-dog"]


def test_a_finished_run_is_drawn_then_measured_then_taken_elsewhere() -> None:
    done = (subject("dog"), run(1, "finished"))
    assert commands(*done)[0] == 'dreambooth generate "a {dog} in space" --grid'
    assert commands(*done, images=8)[0] == "dreambooth eval --run 1 --grid"
    assert commands(*done, images=8, suites=("quick",))[0] == "dreambooth export 1 --to checkpoint"


def test_a_run_of_adapters_is_exported_as_a_lora() -> None:
    found = commands(subject("dog"), run(1, "finished", method="lora"), images=8, suites=("quick",))
    assert found[0] == "dreambooth export 1 --to lora"


@pytest.mark.parametrize(
    ("lora", "proposed"),
    [
        ({"kind": "lokr"}, "dreambooth export 1 --to kohya"),
        ({"kind": "loha"}, "dreambooth export 1 --to kohya"),
        ({"kind": "lora", "least_rank": 2}, 'dreambooth generate "a {dog} in space" --grid'),
    ],
)
def test_no_format_is_proposed_that_the_kind_of_an_adapter_does_not_have(
    lora: dict[str, object], proposed: str
) -> None:
    made = run(1, "finished", method="lora", lora=lora)
    assert commands(subject("dog"), made, images=8, suites=("quick",))[0] == proposed


def test_a_second_subject_is_taught_before_the_first_is_exported() -> None:
    found = commands(subject("dog"), subject("cat"), run(1, "finished"), images=8, suites=("quick",))
    assert found[0] == "dreambooth train --subject cat"


def test_a_subject_that_was_renamed_is_not_taught_once_more() -> None:
    renamed = subject("rex").model_copy(update={"formerly": ["dog"]})
    assert commands(renamed, run(1, "finished")) == ['dreambooth generate "a {dog} in space" --grid']


def test_a_run_made_by_hand_comes_before_the_runs_of_a_sweep_as_it_does_for_generate() -> None:
    of_sweep = run(2, "finished", name="cat").model_copy(update={"work_key": "abc"})
    both = (subject("dog"), subject("cat"), run(1, "finished"), of_sweep)
    assert commands(*both) == ['dreambooth generate "a {dog} in space" --grid']
    assert commands(*both, images=8)[0] == "dreambooth eval --run 1 --grid"


def test_runs_whose_subjects_were_deleted_still_have_a_next_step() -> None:
    assert commands(run(1, "finished"))[0].startswith("dreambooth generate")
    assert commands(run(1, "failed")) == ["dreambooth train --resume 0001-dog"]


def test_the_sheet_of_the_demo_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    save_settings(layout, ProjectSettings(base="tiny"))
    create_run(layout, "dog", lambda name: run(1, "finished").model_copy(update={"name": name}))
    layout.images_dir("0001-dog").mkdir()
    monkeypatch.setattr(demo, "write_sheet", lambda path, *rows, title: path.touch())
    nothing = Generated("0001-dog", [], None, "")
    assert demo._sheet(layout, "0001-dog", nothing, nothing, nothing).is_file()
    assert where_one_stands(tmp_path).images == 0
