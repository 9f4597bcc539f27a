"""Several runs drawing together, through the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from tests.cli.made_projects import TRAIN, command, trained_project
from tests.project import photo_makers

Run = Callable[..., Any]
DRAW = ["-n", 1, "--steps", 2, "--guidance", 3, "--seed", 5, "--json"]
BOTH = ["--run", 1, "--run", 2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs 1 dog (LoRA), 2 cat (DoRA of another rank on other layers), 3 dog (full), 4 an import of the first."""
    folder = tmp_path_factory.mktemp("together")
    project = trained_project(folder, "--method", "lora", "--set=lora.alpha=8")
    photo_makers.save(folder / "more" / "cat.png", photo_makers.plain((200, 20, 50)))
    command("-C", project, "add-subject", "cat", "--class", "cat", "--token", "zwx", folder / "more", "--quiet")
    other = ["--method", "lora", "--set=lora.rank=2", "--set=lora.dora=true", "--set=lora.targets=[to_q, conv1]"]
    command("-C", project, "train", "--subject", "cat", *TRAIN, *other, "--quiet")
    command("-C", project, "train", "--subject", "dog", *TRAIN, "--method", "full", "--quiet")
    file = folder / "dog.safetensors"
    command("-C", project, "export", 1, "--to", "kohya", "--precision", "fp32", "--out", file, "--quiet")
    command("-C", project, "import-lora", file, "--name", "foreign", "--quiet")
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def image(run: Run, *words: object) -> dict[str, Any]:
    done = run("generate", *words, *DRAW)
    assert done.code == 0, done.err
    first: dict[str, Any] = done.document["images"][0]
    return first | {"err": done.err, "document": done.document}


def differs(one: dict[str, Any], other: dict[str, Any]) -> bool:
    with Image.open(one["path"]) as first, Image.open(other["path"]) as second:
        return ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getbbox() is not None


def test_two_runs_draw_together_and_the_recipe_names_both(run: Run, project: Path) -> None:
    both = image(run, "a {dog} beside a {cat}", *BOTH, "--weights", "1,0.8")
    assert both["prompt"] == "a sks dog beside a zwx cat"
    assert both["identifiers"] == {"dog": "sks", "cat": "zwx"}
    runs = [{"run": "0001-dog", "weight": 1.0}, {"run": "0002-cat", "weight": 0.8}]
    assert both["extras"]["runs"] == runs
    assert both["document"]["drawn_with"] == "0001-dog + 0.8 x 0002-cat"
    for alone in (1, 2):
        assert differs(both, image(run, "a sks dog beside a zwx cat", "--run", alone))
    assert differs(both, image(run, "a {dog} beside a {cat}", *BOTH))


def test_like_gives_back_the_runs_and_their_weights(run: Run, project: Path, tmp_path: Path) -> None:
    old = image(run, "a {dog} and a {cat}", *BOTH, "--weights", "0.3,0.9")
    new = run("generate", "--like", old["path"], "--out", tmp_path, "--json").document["images"][0]
    assert new["extras"] == old["extras"]
    assert not differs(old, new)


def test_weights_and_a_collision_that_are_typed_hold_for_the_runs_of_an_image(
    run: Run, project: Path, tmp_path: Path
) -> None:
    alone = image(run, "a {dog}", "--run", 1)
    half = image(run, "--like", alone["path"], "--weights", "0.5", "--out", tmp_path)
    assert half["extras"]["runs"] == [{"run": "0001-dog", "weight": 0.5}]
    old = image(run, "a {dog} and a {cat}", *BOTH, "--weights", "0.3,0.9")
    typed = ["--like", old["path"], "--out", tmp_path]
    assert [one["weight"] for one in image(run, *typed, "--weights", "1,0.2")["extras"]["runs"]] == [1.0, 0.2]
    undo = changed(project, "0002-cat", lambda record: record["subjects"][0].update(identifier="sks1"))
    refused, allowed = run("generate", *typed), run("generate", *typed, "--allow-collision", "--json")
    undo()
    assert (refused.code, allowed.code) == (6, 0), allowed.err
    assert [one["weight"] for one in allowed.document["images"][0]["extras"]["runs"]] == [0.3, 0.9]


def test_like_leaves_out_a_run_that_is_gone(run: Run, project: Path, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    old = image(run, "a {dog}", *BOTH)
    with Image.open(old["path"]) as source_image:
        info = PngInfo()
        info.add_text("dreambooth", source_image.text["dreambooth"].replace("0002-cat", "0009-cat"))  # type: ignore[attr-defined]
        source_image.save(tmp_path / "gone.png", pnginfo=info)
    drawn = run("generate", "--like", tmp_path / "gone.png", "--out", tmp_path, "--json")
    assert "0009-cat, which is not here" in drawn.err
    assert not differs(drawn.document["images"][0], image(run, "a {dog}", "--run", 1))


def test_a_weight_of_nothing_leaves_a_run_out_bit_for_bit(run: Run, project: Path) -> None:
    assert not differs(image(run, "a {dog}", *BOTH, "--weights", "1,0"), image(run, "a {dog}", "--run", 1))
    assert not differs(image(run, "a sks dog", *BOTH, "--weights", "0,0"), image(run, "a sks dog", "--run", "base"))


def test_an_imported_lora_with_an_alpha_of_its_own_goes_with_another(run: Run, project: Path) -> None:
    prompt = "a sks dog beside a {cat}"
    assert not differs(image(run, prompt, *BOTH), image(run, prompt, "--run", 4, "--run", 2))


def test_one_run_can_be_weighted_too(run: Run, project: Path) -> None:
    half = image(run, "a {dog}", "--run", 1, "--weights", "0.5")
    assert half["extras"]["runs"] == [{"run": "0001-dog", "weight": 0.5}]
    assert differs(half, image(run, "a {dog}", "--run", 1))


def test_a_conversation_knows_the_words_of_all_runs(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("a {dog} and a {cat}\n:quit\n"))
    done = run("generate", "--interactive", *BOTH, "--weights", "1,0.5", "--out", tmp_path, *DRAW)
    assert done.code == 0, done.err
    drawn = done.document["drawings"][0]["images"][0]
    assert drawn["prompt"] == "a sks dog and a zwx cat"
    assert not differs(drawn, image(run, "a {dog} and a {cat}", *BOTH, "--weights", "1,0.5"))


def test_prompts_are_read_with_the_words_of_all_runs(run: Run, project: Path) -> None:
    assert "Warning" not in image(run, "a zwx cat", *BOTH)["err"]
    assert "sks" in image(run, "a sks cat", *BOTH)["err"]
    assert "never learnt" in image(run, "a zwx cat", "--run", 1)["err"]


@pytest.mark.parametrize(("number", "proposed"), [("2", "a {cat} in space"), ("base", "a photo")])
def test_without_a_prompt_one_is_proposed_that_the_run_can_draw(
    run: Run, project: Path, number: str, proposed: str
) -> None:
    ended = run("generate", " ", "--run", number)
    assert ended.code == 3 and f'dreambooth generate "{proposed}"' in ended.err, ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([*BOTH, "--weights", "1"], 2, "1 number for 2 runs"),
        ([*BOTH, "--weights", "1,nan"], 2, "'nan' is not a weight"),
        ([*BOTH, "--weights", "1,-10.5"], 2, "'-10.5' is not a weight"),
        ([*BOTH, "--weights", "1,inf"], 2, "'inf' is not a weight"),
        ([*BOTH, "--weights", "1,"], 2, "'' is not a weight"),
        ([*BOTH, "--weights", "much,1"], 2, "'much' is not a weight"),
        (["--run", 1, "--run", 3], 2, "0003-dog is a full run"),
        (["--run", 3, "--weights", "0.5"], 2, "0003-dog is a full run"),
        (["--run", 1, "--run", "base"], 2, "already part of every run"),
        (["--run", 1, "--run", "0001-dog"], 2, "named twice"),
        (["--run", 1, "--run", 9], 4, "no run '9'"),
    ],
)
def test_what_cannot_be_composed_is_said_before_anything_is_loaded(
    run: Run, project: Path, words: list[object], code: int, said: str
) -> None:
    ended = run("generate", "a dog", *words, "--json")
    assert (ended.code, said in ended.err) == (code, True), ended.err


def changed(project: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Changes a run's record; gives back what undoes it."""
    file = project / "runs" / name / "run.json"
    before = file.read_text(encoding="utf-8")
    record = json.loads(before)
    change(record)
    file.write_text(json.dumps(record), encoding="utf-8")
    return lambda: (file.write_text(before, encoding="utf-8"), None)[1]


def test_runs_of_different_bases_are_refused(run: Run, project: Path) -> None:
    undo = changed(project, "0002-cat", lambda record: record["base"].update(hash="f" * 64, name="other"))
    ended = run("generate", "a dog", *BOTH)
    undo()
    assert ended.code == 6
    assert "different bases" in ended.err


def test_runs_whose_words_share_a_token_are_refused_and_can_be_allowed(run: Run, project: Path) -> None:
    undo = changed(project, "0002-cat", lambda record: record["subjects"][0].update(identifier="sks1"))
    refused = run("generate", "a dog", *BOTH)
    allowed = image(run, "a {dog} and a {cat}", *BOTH, "--allow-collision")
    undo()
    assert refused.code == 6
    assert "share a token" in refused.err
    assert len(refused.err.split("--token ")[1].split(";")[0].split(", ")) == 3
    assert "sks1" in allowed["extras"]["allowed_collisions"][0]


def test_a_session_tells_of_the_clash_that_was_allowed(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = changed(project, "0002-cat", lambda record: record["subjects"][0].update(identifier="sks1"))
    monkeypatch.setattr("sys.stdin", io.StringIO(":quit\n"))
    ended = run("generate", "--interactive", *BOTH, "--allow-collision")
    undo()
    assert ended.code == 0, ended.err
    assert "Allowed: " in ended.err and "share a token" in ended.err


def test_one_name_for_two_things_is_refused(run: Run, project: Path) -> None:
    undo = changed(project, "0002-cat", lambda record: record["subjects"][0].update(name="dog"))
    ended = run("generate", "a dog", *BOTH)
    undo()
    assert ended.code == 6
    assert "is ambiguous" in ended.err


def test_a_run_whose_subjects_clash_is_not_exported_unless_allowed(run: Run, project: Path, tmp_path: Path) -> None:
    def two(record: dict[str, Any]) -> None:
        record["subjects"].append({**record["subjects"][0], "name": "tom", "class_noun": "cat"})

    undo = changed(project, "0001-dog", two)
    refused = run("export", 1, "--to", "kohya", "--out", tmp_path / "a.safetensors")
    allowed = run("export", 1, "--to", "kohya", "--out", tmp_path / "a.safetensors", "--allow-collision")
    undo()
    assert refused.code == 6
    assert "share a token" in refused.err and "--token" in refused.err
    assert allowed.code == 0, allowed.err
    events = (project / "runs" / "0001-dog" / "events.jsonl").read_text(encoding="utf-8")
    assert "allowed_collisions" in events


def test_a_negative_weight_draws_away_from_what_was_learnt(run: Run, project: Path) -> None:
    away, towards, plain = (
        image(run, "a sks dog", "--run", 1, "--weights", weight) for weight in ("-0.5", "0.5", "-0")
    )
    assert away["extras"]["runs"] == [{"run": "0001-dog", "weight": -0.5}]
    assert away["document"]["drawn_with"] == "-0.5 x 0001-dog"
    assert plain["extras"]["runs"] == [{"run": "0001-dog", "weight": 0.0}]
    assert differs(away, towards) and differs(away, plain)
    both = image(run, "a {dog} beside a {cat}", *BOTH, "--weights", "-1,0.8")
    assert [one["weight"] for one in both["extras"]["runs"]] == [-1.0, 0.8]
