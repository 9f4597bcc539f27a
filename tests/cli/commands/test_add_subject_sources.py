"""Subjects from other tools' folders and from datasets, with masks and captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw

from tests.metrics import annotator_makers
from tests.project import photo_makers
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]
FAST = ["--steps", 2, "--set=prior.enabled=false"]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def empty(run: Run, tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert run("init", "myproj", "--base", base_folder).code == 0
    monkeypatch.chdir(tmp_path / "myproj")
    return tmp_path / "myproj"


def photos_in(folder: Path, shade: int = 10) -> Path:
    for number in range(2):
        photo_makers.save(folder / f"{number}.png", photo_makers.plain((shade, 90 * number, 50)))
    return folder


def use_model(project: Path, name: str, folder: Path) -> None:
    file = project / "dreambooth.yaml"
    settings = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**settings, "judges": {name: str(folder)}}))


def test_a_kohya_folder_says_identifier_and_class(run: Run, empty: Path, tmp_path: Path) -> None:
    photos_in(tmp_path / "train" / "40_sks dog")
    done = run("add-subject", "rex", tmp_path / "train" / "40_sks dog", "--json")
    assert done.code == 0, done.err
    subject = done.document["subject"]
    assert (subject["name"], subject["identifier"], subject["class_noun"]) == ("rex", "sks", "dog")
    assert "40 repeats" in done.err


def test_a_folder_of_one_kohya_folder_is_understood_too(run: Run, empty: Path, tmp_path: Path) -> None:
    photos_in(tmp_path / "train" / "10_zwx toy robot")
    subject = run("add-subject", "robo", tmp_path / "train", "--json").document["subject"]
    assert (subject["identifier"], subject["class_noun"], len(subject["photos"])) == ("zwx", "toy robot", 2)


def test_options_win_over_the_folders_name(run: Run, empty: Path, tmp_path: Path) -> None:
    folder = photos_in(tmp_path / "40_sks dog")
    subject = run("add-subject", "rex", folder, "--class", "puppy", "--token", "qwe", "--json").document["subject"]
    assert (subject["identifier"], subject["class_noun"]) == ("qwe", "puppy")


@pytest.mark.parametrize(("extra", "expected"), [((), (None, "dog")), (("--class", "cat"), ("dog", "cat"))])
def test_one_word_is_the_class_unless_that_is_known(
    run: Run, empty: Path, tmp_path: Path, extra: tuple[str, ...], expected: tuple[str | None, str]
) -> None:
    done = run("add-subject", "rex", photos_in(tmp_path / "1_dog"), *extra, "--json", "--allow-collision")
    subject = done.document["subject"]
    assert (subject["identifier"], subject["class_noun"]) == expected


def test_two_things_in_one_folder_are_two_subjects(run: Run, empty: Path, tmp_path: Path) -> None:
    photos_in(tmp_path / "train" / "40_sks dog")
    photos_in(tmp_path / "train" / "20_zwx dog", shade=200)
    refused = run("add-subject", "rex", tmp_path / "train")
    assert refused.code == 2
    assert "--dataset" in refused.err
    done = run("add-subject", "--dataset", tmp_path / "train", "--json")
    assert done.code == 0, done.err
    found = [(one["subject"]["name"], one["subject"]["identifier"]) for one in done.document["added"]]
    assert found == [("dog", "zwx"), ("sks-dog", "sks")]


def google_copy(folder: Path) -> Path:
    photos_in(folder / "backpack")
    photos_in(folder / "dog6", shade=120)
    prompts = "['a {0} {1} in the snow'.format(unique_token, class_token),\n]"
    (folder / "prompts_and_classes.txt").write_text(
        "Classes\nsubject_name,class\nbackpack,backpack\ndog6,dog\ncat,cat\n\nPrompts\n\n"
        "Object Prompts\nprompt_list = [\n'a {0} {1} in the snow'.format(unique_token, class_token),\n]\n\n"
        f"Live Subject Prompts\nprompt_list = [\n{prompts[1:]}\n"
    )
    return folder


def test_googles_dataset_gives_one_subject_or_all_that_are_new(run: Run, empty: Path, tmp_path: Path) -> None:
    folder = google_copy(tmp_path / "dreambench")
    one = run("add-subject", "dog6", "--dataset", folder, "--token", "sks", "--json")
    assert one.code == 0, one.err
    assert (one.document["subject"]["class_noun"], one.document["subject"]["identifier"]) == ("dog", "sks")
    rest = run("add-subject", "--dataset", folder)
    assert rest.code == 0
    assert "Subject backpack: 2 photos" in rest.out
    assert "dog6 already exists" in rest.err
    assert "not in this copy: cat" in rest.err
    assert run("add-subject", "wolf", "--dataset", folder).code == 2
    assert run("add-subject", "--dataset", tmp_path / "myproj").code == 3


def test_a_hugging_face_image_folder_brings_its_captions(run: Run, empty: Path, tmp_path: Path) -> None:
    folder = photos_in(tmp_path / "hf")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "1.png", "text": "a dog on grass"}) + "\n")
    done = run("add-subject", "dog", folder, "--class", "dog", "--json")
    assert [photo["caption"] for photo in done.document["subject"]["photos"]] == [None, "a dog on grass"]


def test_masks_are_found_stored_and_used(run: Run, empty: Path, tmp_path: Path) -> None:
    use_model(empty, "mask", annotator_makers.write_clipseg(tmp_path / "clipseg"))
    done = run("add-subject", "dog", photos_in(tmp_path / "in"), "--class", "dog", "--token", "sks", "--mask", "--json")
    assert done.code == 0, done.err
    masks = [Path(path) for path in done.document["masks"]]
    assert [path.relative_to(empty).as_posix() for path in masks] == [
        "subjects/dog/masks/0001.png",
        "subjects/dog/masks/0002.png",
    ]
    with Image.open(masks[0]) as mask, Image.open(empty / "subjects/dog/photos/0001.png") as photo:
        assert (mask.mode, mask.size) == ("L", photo.size)
    trained = run("train", "--subject", "dog", *FAST)
    assert trained.code == 0, trained.err
    assert "masks of 2 of 2 photos" in trained.err


def painted(project: Path) -> Path:
    path = project / "subjects/dog/masks/0001.png"
    path.parent.mkdir(exist_ok=True)
    mask = Image.new("L", (80, 96))
    ImageDraw.Draw(mask).ellipse((20, 20, 60, 60), fill=255)
    mask.save(path)
    return path


def test_a_mask_painted_by_hand_is_used_kept_and_recorded(run: Run, empty: Path, tmp_path: Path) -> None:
    run("add-subject", "dog", photos_in(tmp_path / "in"), "--class", "dog", "--token", "sks")
    plain = run("train", "--subject", "dog", *FAST, "--json").document
    own = painted(empty).read_bytes()
    use_model(empty, "mask", annotator_makers.write_clipseg(tmp_path / "clipseg"))
    assert len(run("add-subject", "dog", "--mask", "--json").document["masks"]) == 1
    assert painted(empty).read_bytes() == own
    refused = run("add-subject", "dog", "--mask", "--token", "mwf", "--class", "wolf")
    assert (refused.code, "already exists" in refused.err) == (6, True)
    assert "dreambooth subjects set dog --token mwf --class wolf gives it these words" in refused.err
    assert run("add-subject", "dog", "--mask", "--token", "sks", "--class", "dog").code == 0
    masked = run("train", "--subject", "dog", *FAST, "--json").document
    assert all(masked["subjects"][0]["mask_hashes"])
    assert masked["loss"] != plain["loss"]
    ignored = run("train", "--subject", "dog", *FAST, "--set=images.mask_loss=1", "--json").document
    assert ignored["loss"] == plain["loss"]


def test_a_run_does_not_go_on_with_other_masks(run: Run, empty: Path, tmp_path: Path) -> None:
    run("add-subject", "dog", photos_in(tmp_path / "in"), "--class", "dog", "--token", "sks")
    mask = painted(empty)
    name = run("train", "--subject", "dog", *FAST, "--json").document["name"]
    record = empty / "runs" / name / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "state": "interrupted"}))
    Image.new("L", (80, 96), 255).save(mask)
    ended = run("train", "--resume")
    assert ended.code == 6
    assert "The masks of 'dog' are not those" in ended.err


@pytest.mark.parametrize("write", [annotator_makers.write_florence, annotator_makers.write_blip])
def test_captions_are_drafted_as_text_files_that_a_person_edits(
    run: Run, empty: Path, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    use_model(empty, "caption", write(tmp_path / "captioner"))
    folder = photos_in(tmp_path / "in")
    (folder / "1.txt").write_text("a {dog} that came with words")
    done = run("add-subject", "dog", folder, "--class", "dog", "--token", "sks", "--caption", "--json")
    assert done.code == 0, done.err
    (file,) = map(Path, done.document["captions"])
    assert file == empty / "subjects/dog/photos/0001.txt"
    assert [file.read_text().strip()] == done.document["caption_texts"]
    if write is annotator_makers.write_blip:  # which says the noun
        assert "{dog}" in file.read_text()
    file.write_text("a {dog} by the sea\n")
    record = run("train", "--subject", "dog", *FAST, "--json").document
    assert record["subjects"][0]["captions"] == ["a {dog} by the sea", "a {dog} that came with words"]


@pytest.mark.parametrize("option", ["--mask", "--caption"])
def test_a_model_that_is_not_there_costs_nothing_and_names_the_way_out(
    run: Run, empty: Path, tmp_path: Path, option: str
) -> None:
    ended = run("add-subject", "dog", photos_in(tmp_path / "in"), "--class", "dog", option, "--offline")
    assert ended.code == 4
    assert f"{option[2:]}: /path/to/folder" in ended.err
    assert "subjects/NAME/" in ended.err
    assert not (empty / "subjects" / "dog").exists()
