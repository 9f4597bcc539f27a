"""Subjects listed, renamed and removed, and whose word a word stays."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.workflows.subjects import identifiers
from tests.cli.made_projects import command, trained_project

Run = Callable[..., Any]
DRAW = ["-n", 1, "--steps", 1, "--json"]
QUICK = ["--steps", 1, "--set=prior.enabled=false"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = trained_project(tmp_path_factory.mktemp("names"), "--method", "lora")
    command("-C", project, "export", 1, "--to", "kohya", "--out", project / "dog.safetensors", "--quiet")
    return project


@pytest.fixture
def dog(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project with the subject dog, sks, and the run 0001-dog."""
    import shutil

    shutil.copytree(made, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


def add(run: Run, photos: Path, name: str, noun: str, token: str | None = None, *words: str) -> Any:
    given = [] if token is None else ["--token", token]
    return run("add-subject", name, "--class", noun, photos, *given, *words)


def listed(run: Run) -> dict[str, Any]:
    return {one["name"]: one for one in run("subjects", "list", "--json").document["subjects"]}


def test_the_list_names_words_photos_and_runs(run: Run, dog: Path, photos: Path) -> None:
    add(run, photos, "cat", "cat")
    found = listed(run)
    assert (found["dog"]["identifier"], found["dog"]["runs"]) == ("sks", ["0001-dog"])
    assert (found["cat"]["identifier"], found["cat"]["runs"]) == (None, [])
    assert "sks dog" in run("subjects", "list").out


def test_a_renamed_subject_keeps_photos_word_and_runs(run: Run, dog: Path) -> None:
    (dog / "subjects/dog/photos/0001.txt").write_text("a {dog} on a sofa\n", encoding="utf-8")
    before = run("generate", "a {dog}", *DRAW).document["images"][0]
    assert run("subjects", "rename", "dog", "rex").code == 0
    found = listed(run)
    assert list(found) == ["rex"]
    assert (found["rex"]["formerly"], found["rex"]["runs"]) == (["dog"], ["0001-dog"])
    assert (dog / "subjects/rex/photos/0001.txt").read_text(encoding="utf-8") == "a {rex} on a sofa\n"
    # The run is history: it knows the subject by the name it learnt, and draws what it drew.
    again = run("generate", "a {dog}", *DRAW)
    assert "Warning" not in again.err
    with Image.open(before["path"]) as one, Image.open(again.document["images"][0]["path"]) as other:
        assert ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is None
    assert run("generate", "a {dog}", "--grid", *DRAW).code == 0
    assert run("train", "--subject", "rex", *QUICK, "--method", "lora").code == 0
    # One subject under two names is no collision.
    assert run("generate", "a {rex} and a {dog}", "--run", 1, "--run", 2, *DRAW).code == 0


def test_a_run_that_was_stopped_goes_on_after_its_subject_was_renamed(run: Run, dog: Path) -> None:
    (dog / "subjects/dog/photos/0001.txt").write_text("a {dog} on a sofa\n", encoding="utf-8")
    assert run("train", "--subject", "dog", *QUICK).code == 0
    record = dog / "runs/0002-dog/run.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"finished"', '"interrupted"', 1), encoding="utf-8")
    assert run("subjects", "rename", "dog", "rex").code == 0
    resumed = run("train", "--resume", 2)
    assert resumed.code == 0, resumed.err


def test_a_subject_that_a_run_learns_under_its_earlier_name_is_not_removed(run: Run, dog: Path) -> None:
    assert run("subjects", "rename", "dog", "rex").code == 0
    record = dog / "runs/0001-dog/run.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"finished"', '"running"', 1), encoding="utf-8")
    with hold(Layout(dog).run_lock("0001-dog"), "the run 0001-dog"):
        refused = run("subjects", "remove", "rex", "--yes")
    assert refused.code == 6
    assert "0001-dog is training on 'rex' now" in refused.err
    assert (dog / "subjects/rex/photos").is_dir()


def test_a_subject_that_was_renamed_is_rehearsed_and_taught_on(run: Run, dog: Path, photos: Path) -> None:
    run("subjects", "rename", "dog", "rex")
    add(run, photos, "cat", "cat", "zwx")
    on = run("train", "--from", 1, "--subject", "cat", *QUICK, "--json")
    assert on.code == 0, on.err
    learnt = {one["name"]: (one["identifier"], one["rehearsed"]) for one in on.document["subjects"]}
    assert learnt == {"cat": ("zwx", False), "rex": ("sks", True)}
    again = run("train", "--from", 1, "--subject", "rex", *QUICK, "--json")
    assert again.code == 0, again.err
    assert [one["name"] for one in again.document["subjects"]] == ["rex"]


def test_a_name_that_a_run_knows_stays_with_its_subject(run: Run, dog: Path, photos: Path) -> None:
    run("subjects", "rename", "dog", "rex")
    taken = add(run, photos, "dog", "dog", "zwx")
    assert taken.code == 6
    assert "In 0001-dog, 'rex' is called 'dog'" in taken.err
    assert run("subjects", "rename", "rex", "dog").code == 0
    assert listed(run)["dog"]["formerly"] == []


def test_a_name_that_no_run_knows_is_free_and_takes_no_word_along(run: Run, dog: Path, photos: Path) -> None:
    run("subjects", "rename", "dog", "rex")
    run("runs", "rm", 1, "--yes")
    assert add(run, photos, "dog", "dog", "zwx").code == 0
    assert listed(run)["rex"]["formerly"] == []
    assert run("train", "--subject", "rex", "--token", "zwx1", *QUICK).code == 6


@pytest.mark.parametrize(("new", "code"), [("dog", 6), ("cat", 6), ("identifier", 6), ("../x", 6), ("", 2)])
def test_names_that_cannot_be_taken(run: Run, dog: Path, photos: Path, new: str, code: int) -> None:
    add(run, photos, "cat", "cat")
    assert run("subjects", "rename", "dog", new).code == code
    assert set(listed(run)) == {"dog", "cat"}


def test_a_removed_subjects_name_in_a_run_is_not_given_to_another(run: Run, dog: Path, photos: Path) -> None:
    add(run, photos, "cat", "cat", "zwx")
    assert run("subjects", "remove", "dog", "--yes").code == 0
    refused = run("subjects", "rename", "cat", "dog")
    assert refused.code == 6
    assert "learnt another subject" in refused.err


def test_a_renaming_that_was_cut_short_is_ended_by_the_same_command(run: Run, dog: Path) -> None:
    file = dog / "subjects/dog/subject.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("name: dog", "name: rex", 1), encoding="utf-8")
    told = run("train", "--subject", "dog", *QUICK)
    assert "dreambooth subjects rename dog rex" in told.err
    assert run("subjects", "rename", "dog", "rex").code == 0
    assert list(listed(run)) == ["rex"]


def test_removing_asks_and_keeps_the_runs(run: Run, dog: Path, photos: Path) -> None:
    assert run("subjects", "remove", "dog").code == 6
    assert run("subjects", "remove", "dog", "--yes").code == 0
    assert not (dog / "subjects/dog").exists()
    assert run("generate", "a {dog}", *DRAW).code == 0
    assert add(run, photos, "tom", "cat", "sks").code == 6
    assert run("subjects", "remove", "dog", "--yes").code == 3


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("mountain", "single token"),
        ("café", "single token"),
        ("red-house", "plain word 'red'"),
        ("42", "a number"),
        ("a🐶", "plain word 'a'"),
        ("hot-dog", "class noun"),
    ],
)
def test_words_that_mean_something_are_refused(run: Run, dog: Path, photos: Path, word: str, why: str) -> None:
    refused = add(run, photos, "tom", "cat", word)
    assert (refused.code, why in refused.err) == (6, True), refused.err
    assert len(refused.err.split("take one of ")[1].split(";")[0].split(", ")) == 3


def test_a_class_noun_that_is_somebodys_word_is_refused(run: Run, dog: Path, photos: Path) -> None:
    refused = add(run, photos, "lamp", "sks lamp")
    assert refused.code == 6
    assert "shares a token with the identifier 'sks'" in refused.err
    assert add(run, photos, "lamp", "sks lamp", None, "--allow-collision").code == 0


def test_a_clash_that_was_allowed_once_is_not_trained_unless_allowed_again(run: Run, dog: Path, photos: Path) -> None:
    assert add(run, photos, "tom", "cat", "sks1", "--allow-collision").code == 0
    refused = run("train", "--subject", "tom", *QUICK)
    assert refused.code == 6
    assert "shares a token with the identifier 'sks'" in refused.err
    assert run("train", "--subject", "tom", *QUICK, "--allow-collision", "--json").document["allow_collision"] is True


def test_a_lora_from_elsewhere_takes_nobodys_word(run: Run, dog: Path) -> None:
    file = dog / "dog.safetensors"
    refused = run("import-lora", file, "--token", "sks1", "--class", "cat")
    assert refused.code == 6
    assert "identifier 'sks'" in refused.err
    allowed = run("import-lora", file, "--token", "sks1", "--class", "cat", "--allow-collision", "--json")
    assert allowed.document["allow_collision"] is True


def test_a_lora_with_the_words_of_a_subject_counts_as_its_own(run: Run, dog: Path) -> None:
    run("subjects", "rename", "dog", "rex")
    record = run("import-lora", dog / "dog.safetensors", "--json").document
    assert [one["name"] for one in record["subjects"]] == ["rex"]


def test_a_lora_of_the_same_class_gets_a_name_of_its_own(run: Run, dog: Path) -> None:
    record = run("import-lora", dog / "dog.safetensors", "--token", "zwx", "--class", "dog", "--json").document
    assert [one["name"] for one in record["subjects"]] == ["dog-2"]


def test_the_list_of_words_tells_rarity_clashes_runs_and_on_request_the_strength(
    run: Run, dog: Path, photos: Path
) -> None:
    add(run, photos, "tom", "cat", "sks1", "--allow-collision")
    run("subjects", "remove", "dog", "--yes")
    found = {one["identifier"]: one for one in run("tokens", "list", "--measure", "--json").document["identifiers"]}
    assert set(found) == {"sks", "sks1"}
    assert (found["sks"]["subject"], found["sks"]["runs"]) == ("dog", ["0001-dog"])
    assert found["sks"]["rarity"] == pytest.approx(48136 / 49406)
    assert "shares a token" in found["sks"]["clash"] and "shares a token" in found["sks1"]["clash"]
    assert found["sks"]["strength"] is not None
    assert "97%" in run("tokens", "list").out


def test_words_beside_several_nouns_are_measured_by_a_base_that_is_loaded_once(
    run: Run, dog: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(run, photos, "wolf", "wolf", "mwf")
    add(run, photos, "fox", "wolf", "zwx")
    load, loaded = identifiers.load_project_base, []
    monkeypatch.setattr(identifiers, "load_project_base", lambda *given, **how: loaded.append(1) or load(*given, **how))
    listed_words = run("tokens", "list", "--measure", "--json").document["identifiers"]
    assert len(loaded) == 1
    strengths = {one["identifier"]: one["strength"] for one in listed_words}
    for word, noun in (("sks", "dog"), ("mwf", "wolf"), ("zwx", "wolf")):
        alone = run("tokens", "check", word, "--class", noun, "--json").document
        assert strengths[word] == pytest.approx(alone["strength"], rel=1e-4)


def test_a_word_that_is_taken_is_not_proposed_for_one_of_several(run: Run, dog: Path, photos: Path) -> None:
    for name in ("wolf", "fox"):
        assert run("add-subject", name, "--class", name, photos).code == 0
    told = run("train", "--subject", "wolf,fox", "--token", "sks", "--dry-run")
    assert told.code == 2
    proposed = shlex.split(told.err.split("→ ")[1].splitlines()[0])
    assert "wolf=sks" not in proposed
    assert run("train", "--subject", "wolf,fox", *proposed, "--dry-run").code == 0


def test_a_subject_that_is_named_twice_is_told_before_its_word(run: Run, dog: Path) -> None:
    told = run("train", "--subject", "dog,dog", "--token", "mwf", "--dry-run")
    assert told.code == 2
    assert "named twice" in told.err and "--subject dog" in told.err


@pytest.mark.parametrize(
    ("words", "way_on"),
    [
        ([], "dreambooth train --subject dog teaches it"),
        (["--token", "zwx"], "dreambooth subjects set dog --token zwx"),
    ],
    ids=["without words", "with a word"],
)
def test_a_subject_that_is_there_is_told_before_its_class_is_asked_for(
    run: Run, dog: Path, words: list[str], way_on: str
) -> None:
    for photos in ([], [dog / "subjects" / "dog" / "photos"]):
        done = run("add-subject", "dog", *photos, *words)
        assert (done.code, "The subject 'dog' already exists" in done.err) == (6, True), done.err
        assert way_on in done.err and "subjects remove dog makes room" in done.err
