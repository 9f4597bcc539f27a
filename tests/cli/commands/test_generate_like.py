"""Pictures drawn again from what is written inside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from tests.cli import made_projects
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_projects.trained_project(tmp_path_factory.mktemp("like"), "--method", "lora")


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose base's text encoder has several layers."""
    base = write_small_base(tmp_path / "deep", text_layers=3)
    made = made_projects.trained_project(tmp_path, "--method", "lora", base=base)
    monkeypatch.chdir(made)
    return made


def first(run: Run, *words: object) -> dict[str, Any]:
    done = run("generate", *words, "--json")
    assert done.code == 0, done.err
    image: dict[str, Any] = done.document["images"][0]
    return image | {"err": done.err, "count": len(done.document["images"])}


def test_a_picture_of_ours_is_drawn_again_bit_by_bit(run: Run, project: Path, tmp_path: Path) -> None:
    how = ["-n", 1, "--seed", 7, "--steps", 3, "--guidance", 4.5, "--sampler", "euler-a", "--negative", 'a, "b"\n🐶']
    old = first(run, 'a {dog}, "red"\nSteps: 5, 🐶', *how)
    new = first(run, "--like", old["path"], "--out", tmp_path)
    for key in ("prompt", "negative", "seed", "steps", "guidance", "sampler", "width", "run"):
        assert new[key] == old[key], key
    with Image.open(old["path"]) as one, Image.open(new["path"]) as other:
        assert ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is None


def test_the_numbers_it_was_drawn_in_are_part_of_a_picture(run: Run, project: Path, tmp_path: Path) -> None:
    how = ["a {dog}", "-n", 1, "--steps", 2, "--out", tmp_path]
    whole, half = (first(run, *how, "--precision", precision) for precision in ("fp32", "bf16"))
    assert half["extras"] == whole["extras"] | {"precision": "bf16"}
    assert "precision" not in whole["extras"]
    again = first(run, "--like", half["path"], "--out", tmp_path / "again")
    assert again["extras"] == half["extras"]
    names = [Path(one["path"]).name for one in (whole, half, again)]
    assert names[0] != names[1] == names[2]
    assert run("generate", *how, "--precision", "fp8").code == 2


def test_a_compiled_drawing_is_another_recipe_and_needs_a_compiler(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    done = run("generate", "a {dog}", "-n", 1, "--steps", 2, "--out", tmp_path, "--compile")
    assert done.code == 5
    assert "C++ compiler" in done.err and "--no-compile" in done.err
    assert run("generate", "a {dog}", "-n", 1, "--steps", 2, "--out", tmp_path, "--no-compile").code == 0
    assert len(list(tmp_path.glob("*.png"))) == 1


def theirs(path: Path, parameters: str) -> Path:
    info = PngInfo()
    info.add_text("parameters", parameters)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


THEIRS = """a cat, (on a mat:1.2)
Negative prompt: blurry
Steps: 2, Sampler: Euler a, CFG scale: 3, Seed: 11, Size: 64x96, Model: x"""


def test_a_picture_of_automatic1111_gives_its_settings(run: Run, project: Path, tmp_path: Path) -> None:
    drawn = first(run, "--like", theirs(tmp_path / "a.png", THEIRS), "--out", tmp_path)
    assert (drawn["prompt"], drawn["negative"], drawn["count"]) == ("a cat, (on a mat:1.2)", "blurry", 1)
    assert (drawn["steps"], drawn["sampler"], drawn["guidance"], drawn["seed"]) == (2, "euler-a", 3.0, 11)
    assert (drawn["width"], drawn["height"]) == (64, 96)
    assert "(on a mat:1.2): read as words" in drawn["err"]


def test_the_command_line_wins_over_the_recipe(run: Run, project: Path, tmp_path: Path) -> None:
    image = theirs(tmp_path / "a.png", THEIRS.replace("Euler a", "Restart"))
    given = ["a {dog}", "--seed", 3, "--steps", 1, "--height", 64, "-n", 2, "--negative", ""]
    drawn = first(run, *given, "--like", image, "--out", tmp_path)
    assert (drawn["prompt"], drawn["seed"], drawn["steps"], drawn["count"]) == ("a sks dog", 3, 1, 2)
    assert (drawn["width"], drawn["height"], drawn["guidance"], drawn["negative"]) == (64, 64, 3.0, "")
    assert drawn["sampler"] == "ddim"
    assert "Sampler: Restart" in drawn["err"]


def test_a_picture_of_a_run_that_is_not_here_is_drawn_with_the_newest(run: Run, project: Path, tmp_path: Path) -> None:
    old = first(run, "a {dog}", "-n", 1, "--steps", 1)
    with Image.open(old["path"]) as image:
        info = PngInfo()
        info.add_text("dreambooth", image.text["dreambooth"].replace("0001-dog", "0009-cat"))  # type: ignore[attr-defined]
        image.save(tmp_path / "b.png", pnginfo=info)
    drawn = first(run, "--like", tmp_path / "b.png", "--out", tmp_path)
    assert drawn["run"] == "0001-dog"
    assert "0009-cat, which is not here" in drawn["err"]


def test_a_picture_without_a_recipe_is_exit_3(run: Run, project: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    ended = run("generate", "--like", tmp_path / "plain.png")
    assert ended.code == 3
    assert "contains no recipe" in ended.err


def test_like_does_not_go_with_a_conversation(run: Run, project: Path, tmp_path: Path) -> None:
    assert run("generate", "--interactive", "--like", tmp_path / "a.png").code == 2


FOREIGN = """{{masterpiece}}, (red:1.3) [cat] of {dog}
Negative prompt: {bad}, ((ugly))
Steps: 2, Sampler: Euler a, CFG scale: 3, Seed: 11, Size: 65x96, Clip skip: 1, Model: other, Hires upscale: 2, \
Variation seed: 4, ADetailer model: face.pt, ADetailer prompt: "a, b", ADetailer confidence: 0.3, Version: v1.10.1"""


def test_what_another_program_does_alone_is_listed_and_its_braces_are_text(
    run: Run, project: Path, tmp_path: Path
) -> None:
    drawn = first(run, "--like", theirs(tmp_path / "a.png", FOREIGN), "--out", tmp_path)
    assert drawn["prompt"] == "{{masterpiece}}, (red:1.3) [cat] of {dog}"
    assert drawn["negative"] == "{bad}, ((ugly))"
    said = " ".join(drawn["err"].split())
    assert "ignored, not supported by this program: Hires upscale, Variation seed, ADetailer …." in said
    assert "(red:1.3), ((ugly)): read as words" in said
    assert "{masterpiece}, [cat], {dog}, {bad}, (ugly): emphasis in its program, read as words here" in said
    assert "the same settings" not in said
    again = first(run, "--like", drawn["path"], "--out", tmp_path / "again")
    assert (again["prompt"], again["negative"]) == (drawn["prompt"], drawn["negative"])


def test_a_size_that_an_image_has_and_the_base_cannot_draw_is_the_nearest(
    run: Run, project: Path, tmp_path: Path
) -> None:
    drawn = first(run, "--like", theirs(tmp_path / "a.png", FOREIGN), "--out", tmp_path)
    assert (drawn["width"], drawn["height"]) == (64, 96)
    said = " ".join(drawn["err"].split())
    assert "a.png is 65 x 96 px, which this base cannot generate: 64 x 96 is used" in said
    assert "--width" not in said
    typed = run("generate", "a {dog}", "--width", 65)
    assert (typed.code, "--width 65 does not fit this base" in typed.err, "--width 64" in typed.err) == (2, True, True)


def test_one_side_that_is_typed_leaves_the_other_to_the_image(run: Run, project: Path, tmp_path: Path) -> None:
    image = theirs(tmp_path / "a.png", FOREIGN)
    drawn = first(run, "--like", image, "--out", tmp_path, "--height", 64)
    assert (drawn["width"], drawn["height"]) == (64, 64)
    assert "--width" not in drawn["err"]
    assert "--height 64" in run("generate", "--like", image, "--height", 65).err


def test_a_size_that_no_base_draws_is_not_followed(run: Run, project: Path, tmp_path: Path) -> None:
    drawn = first(run, "--like", theirs(tmp_path / "a.png", FOREIGN.replace("65x96", "99999x99999")), "--out", tmp_path)
    assert (drawn["width"], drawn["height"]) == (64, 64)
    assert "Size: 99999x99999" in drawn["err"]


@pytest.mark.parametrize(("seed", "code"), [(4294967295, 0), (-1, 0), (4294967296, 2), (2**64, 2)])
def test_a_seed_from_an_image_holds_to_the_rule(run: Run, project: Path, tmp_path: Path, seed: int, code: int) -> None:
    image = theirs(tmp_path / "a.png", THEIRS.replace("Seed: 11", f"Seed: {seed}"))
    done = run("generate", "--like", image, "--out", tmp_path, "--json")
    assert done.code == code, done.err
    if code:
        assert f"--seed {seed % 2**32}\n" in done.err
    else:
        found = done.document["images"][0]["seed"]
        assert 0 <= found < 2**32 and (found == seed or seed == -1)


def test_clip_skip_is_drawn_recorded_and_taken_back(run: Run, deep: Path, tmp_path: Path) -> None:
    how = ["a {dog}", "-n", 1, "--steps", 2, "--out", tmp_path]
    plain, last, skipped = first(run, *how), first(run, *how, "--clip-skip", 1), first(run, *how, "--clip-skip", 2)
    assert (plain["path"], "clip_skip" in plain["extras"]) == (last["path"], False)
    assert skipped["extras"] == plain["extras"] | {"clip_skip": 2}
    with Image.open(plain["path"]) as one, Image.open(skipped["path"]) as other:
        assert ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is not None
        assert "Clip skip: 2" in other.text["parameters"]  # type: ignore[attr-defined]
        assert "Clip skip" not in one.text["parameters"]  # type: ignore[attr-defined]
    again = first(run, "--like", skipped["path"], "--out", tmp_path / "again")
    assert (again["extras"], Path(again["path"]).name) == (skipped["extras"], Path(skipped["path"]).name)
    foreign = theirs(tmp_path / "a.png", THEIRS.replace("Seed: 11", "Seed: 11, Clip skip: 2"))
    assert first(run, "--like", foreign, "--out", tmp_path)["extras"]["clip_skip"] == 2


def test_clip_skip_has_as_many_layers_as_the_text_encoder(run: Run, project: Path) -> None:
    done = run("generate", "a {dog}", "--clip-skip", 2)
    assert done.code == 2
    assert "its text encoder has 1 layer." in done.err


def test_values_that_cannot_be_drawn_with_are_not_blamed_on_the_command_line(
    run: Run, project: Path, tmp_path: Path
) -> None:
    text = "a cat\nSteps: 5000, Sampler: Euler a, CFG scale: 700, Seed: 11, Eta: 3, Clip skip: 12, Model: x"
    drawn = first(run, "--like", theirs(tmp_path / "a.png", text), "--out", tmp_path, "--steps", 2)
    said = " ".join(drawn["err"].split())
    assert "the run's own settings are used: Steps: 5000, CFG scale: 700.0, Eta: 3.0, Clip skip: 12." in said
    assert (drawn["steps"], drawn["seed"]) == (2, 11)


def test_an_image_that_was_drawn_with_minus_one_is_drawn_again(run: Run, project: Path, tmp_path: Path) -> None:
    old = first(run, "a {dog}", "-n", 1, "--steps", 1, "--seed", 2**32 - 1)
    with Image.open(old["path"]) as image:
        info = PngInfo()
        info.add_text("dreambooth", image.text["dreambooth"].replace("4294967295", "-1"))  # type: ignore[attr-defined]
        image.save(tmp_path / "b.png", pnginfo=info)
    new = first(run, "--like", tmp_path / "b.png", "--out", tmp_path)
    assert new["seed"] == 2**32 - 1
    with Image.open(old["path"]) as one, Image.open(new["path"]) as other:
        assert ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is None
