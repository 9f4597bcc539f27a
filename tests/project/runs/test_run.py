from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbcli.errors import DataError, LockHeld, Refused, RunMissing
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.runs.run_store import (
    RunBase,
    RunRecord,
    RunSubject,
    append_event,
    create_run,
    find_run,
    list_runs,
    load_run,
    newest_run,
    read_events,
    read_runs,
    remove_run,
    run_named,
    save_run,
)
from dbcli.project.settings.profile_settings import Profile

ROOT = Path(__file__).resolve().parents[3]


def make_run(layout: Layout, slug: str = "dog", **values: object) -> RunRecord:
    record = RunRecord(
        name=create_run(layout, slug), method="full", base=RunBase(name="tiny", source="embedded"), **values
    )
    save_run(layout, record)
    return record


def test_runs_are_numbered_from_one(layout: Layout) -> None:
    assert [create_run(layout, slug) for slug in ("dog", "dog", "Dog.2")] == [
        "0001-dog",
        "0002-dog",
        "0003-Dog.2",
    ]


@pytest.mark.parametrize(
    ("slug", "name"),
    [
        ("dog+cat, both", "0001-dog-cat-both"),
        ("", "0001-run"),
        ("../../etc", "0001-etc"),
        ("犬", "0001-run"),
        ("a" * 99, "0001-" + "a" * 48),
    ],
)
def test_any_text_makes_a_safe_run_name(layout: Layout, slug: str, name: str) -> None:
    assert create_run(layout, slug) == name
    assert layout.run_dir(name).is_dir()


def test_numbers_go_on_after_the_highest_and_past_9999(layout: Layout) -> None:
    (layout.runs_dir / "9999-dog").mkdir(parents=True)
    (layout.runs_dir / "notes").mkdir()
    assert create_run(layout, "dog") == "10000-dog"
    assert create_run(layout, "dog") == "10001-dog"


def test_processes_never_take_the_same_number(layout: Layout) -> None:
    code = (
        "import sys; from pathlib import Path; from dbcli.project.files.layout import Layout\n"
        "from dbcli.project.runs.run_store import create_run\n"
        "for _ in range(5): create_run(Layout(Path(sys.argv[1])), sys.argv[2])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(layout.root), f"s{one}"], env=environment) for one in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    numbers = sorted(int(name[:4]) for name in os.listdir(layout.runs_dir) if not name.startswith("."))
    assert numbers == list(range(1, 21))


def test_a_record_comes_back_as_it_was(layout: Layout) -> None:
    record = make_run(
        layout,
        state="finished",
        profile=Profile().model_dump(mode="json"),
        subjects=[RunSubject(name="dog", class_noun="dog", identifier="sks", photo_hashes=["ab" * 32])],
        versions={"torch": "2.15"},
        timings={"training": 1.5},
        peak_memory_bytes=123,
        step=800,
        total_steps=800,
        loss=0.25,
    )
    assert load_run(layout, record.name) == record
    raw = json.loads(layout.run_file(record.name).read_text())
    assert (raw["schema"], raw["state"], raw["subjects"][0]["identifier"]) == (1, "finished", "sks")
    assert record.number == 1


def test_a_loss_that_is_not_a_number_is_null(layout: Layout) -> None:
    record = make_run(layout, loss=float("nan"))
    assert json.loads(layout.run_file(record.name).read_text())["loss"] is None


def test_what_a_newer_version_added_survives(layout: Layout) -> None:
    record = make_run(layout)
    raw = json.loads(layout.run_file(record.name).read_text())
    raw["mood"], raw["base"]["maker"] = "good", "me"
    layout.run_file(record.name).write_text(json.dumps(raw))
    save_run(layout, load_run(layout, record.name))
    again = json.loads(layout.run_file(record.name).read_text())
    assert (again["mood"], again["base"]["maker"]) == ("good", "me")


@pytest.mark.parametrize("text", ["1", "0001", "0001-dog", "runs/0001-dog", "./runs/0001-dog/", " 1 "])
def test_a_run_is_found_by_number_or_name(layout: Layout, text: str) -> None:
    make_run(layout)
    make_run(layout, "cat")
    assert find_run(layout, text).name == "0001-dog"


@pytest.mark.parametrize("text", ["7", "dog", "0001", "", "../x", "9" * 50, "²", "\x1b"])
def test_a_run_that_is_not_there_is_missing(layout: Layout, text: str) -> None:
    (layout.runs_dir / "0002-dog").mkdir(parents=True)
    with pytest.raises(RunMissing, match="0002-dog") as caught:
        find_run(layout, text)
    assert caught.value.exit_code == 4 and "\x1b" not in caught.value.message


def test_the_newest_run_in_the_wanted_state(layout: Layout) -> None:
    with pytest.raises(RunMissing) as caught:
        newest_run(layout)
    assert "dreambooth train" in str(caught.value.hint)
    for state in ("finished", "finished", "interrupted", "running"):
        make_run(layout, state=state)
    create_run(layout, "empty")
    assert newest_run(layout).number == 2
    assert newest_run(layout, states=("interrupted", "running")).number == 4


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "0001-dog"}', "\xff", '{"name":"x","method":"full"}'])
def test_a_damaged_record_is_named_and_the_rest_goes_on(layout: Layout, text: str) -> None:
    make_run(layout)
    make_run(layout, state="finished")
    layout.run_file("0001-dog").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"run\.json|0001-dog"):
        load_run(layout, "0001-dog")
    assert [one.number for one in list_runs(layout)] == [2]
    assert len(read_runs(layout)[1]) == 1


def test_a_run_whose_record_is_damaged_can_be_named_to_be_removed(layout: Layout) -> None:
    make_run(layout)
    layout.run_file("0001-dog").write_text("{", encoding="utf-8")
    assert run_named(layout, "1") == run_named(layout, "0001-dog") == "0001-dog"
    create_run(layout, "empty")
    with pytest.raises(RunMissing):
        run_named(layout, "2")


def test_a_copied_record_is_not_taken_for_the_run(layout: Layout) -> None:
    make_run(layout)
    make_run(layout)
    layout.run_file("0002-dog").write_bytes(layout.run_file("0001-dog").read_bytes())
    with pytest.raises(DataError, match="not of '0002-dog'"):
        load_run(layout, "0002-dog")


def test_events_come_back_in_order_and_a_half_line_is_left_out(layout: Layout) -> None:
    name = create_run(layout, "dog")
    assert read_events(layout, name) == []
    append_event(layout, name, {"step": 1, "loss": 0.5})
    with layout.events_file(name).open("ab") as file:
        file.write(b'{"step": 2, "lo')
    append_event(layout, name, {"step": 3, "loss": float("inf"), "note": "a\nb"})
    assert read_events(layout, name) == [{"step": 1, "loss": 0.5}, {"step": 3, "loss": None, "note": "a\nb"}]


def test_the_number_of_a_removed_run_is_not_given_to_another(layout: Layout) -> None:
    first, second = create_run(layout, "dog"), create_run(layout, "dog")
    remove_run(layout, second)
    assert create_run(layout, "cat") == "0003-cat"
    for name in (first, "0003-cat"):
        remove_run(layout, name)
    assert create_run(layout, "dog") == "0004-dog"


def test_neither_is_one_from_before_numbers_were_kept(layout: Layout) -> None:
    create_run(layout, "dog")
    name = create_run(layout, "dog")
    layout.run_number_file.unlink()
    remove_run(layout, name)
    assert create_run(layout, "dog") == "0003-dog"


@pytest.mark.parametrize("text", ["", "[]", '{"number": true}', '{"number": "7"}'])
def test_a_damaged_note_of_the_number_keeps_no_run_from_being_made(layout: Layout, text: str) -> None:
    create_run(layout, "dog")
    layout.run_number_file.write_text(text)
    assert create_run(layout, "dog") == "0002-dog"


def test_a_run_is_removed_but_not_while_it_is_written(layout: Layout) -> None:
    record = make_run(layout)
    with hold(layout.run_lock(record.name), "the run"), pytest.raises(LockHeld):
        remove_run(layout, record.name)
    remove_run(layout, record.name)
    assert list_runs(layout) == [] and not layout.run_dir(record.name).exists()
    with pytest.raises(RunMissing):
        remove_run(layout, record.name)
    with pytest.raises(Refused):
        remove_run(layout, "..")
