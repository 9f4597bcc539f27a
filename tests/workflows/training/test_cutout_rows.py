"""What a photo with a mask is shown as: itself, and its subject on plain colours and in scenes, which captions name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.cutouts import colours_of, scenes_of
from dbcli.errors import PromptError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import load_run
from dbcli.project.subjects.subject_store import store_subject
from dbcli.workflows.progress import Silence
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.setup.open import init_project, load_project_base
from dbcli.workflows.signals import StopSignal
from dbcli.workflows.training.data import TrainingData, encode_data
from dbcli.workflows.training.plan import plan_training
from dbcli.workflows.training.request import TrainRequest
from dbcli.workflows.training.run_record import new_run
from dbcli.workflows.training.scenes import draw_scenes


def begun(folder: Path, *sets: str) -> tuple[RunContext, Base]:
    """A run with these settings of two photos, of which the first has a mask and a caption."""
    given = folder / "given"
    given.mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (128, 128), colour).save(given / f"{name}.png")
    (given / "a.txt").write_text("a {rex} on grass", encoding="utf-8")
    init_project(folder / "p", "tiny", None, offline=True)
    layout = Layout(folder / "p")
    subject = store_subject(layout, "rex", "dog", [given], "sks").subject
    mask = Image.new("L", (128, 128))
    mask.paste(255, (32, 32, 96, 96))
    layout.masks_dir("rex").mkdir()
    mask.save(layout.masks_dir("rex") / "0001.png")
    usual = ["images.crop=center", "images.scene_cutouts=0", "prior.enabled=false"]
    plan = plan_training(layout, TrainRequest(["rex"], sets=[*usual, *sets]))
    record = load_run(layout, new_run(layout, plan))
    base = load_project_base(layout, Silence(), offline=True)
    return RunContext(layout, record, plan.profile, [subject], Silence(), StopSignal()), base


def taught(folder: Path, *sets: str) -> tuple[TrainingData, Base]:
    """What such a run would learn."""
    run, base = begun(folder, *sets)
    return encode_data(run, base, [[]], draw_scenes(run, base)), base


def test_a_masked_photo_is_shown_cut_out_and_never_without_the_name_of_its_colour(tmp_path: Path) -> None:
    data, base = taught(tmp_path, "images.cutouts=2", "images.templates=['a {identifier} {class}']")
    (subject,), colours = data.subjects, colours_of(0, 0, 2)
    assert len(subject.photos) == len(data.images) == 4
    (sentence,) = subject.sentences
    named = [f"a sks dog on {'an' if one[0] in 'aeiou' else 'a'} {one} background" for one in colours]
    assert [data.prompts[one] for one in sentence.photo_prompts] == ["a sks dog", "a sks dog", *named]
    assert [data.prompts[one] for one in sentence.captioned_prompts] == ["a sks dog on grass", "a sks dog", *named]
    # The photo's red in the middle, another ground around it.
    pixels = base.vae.decode(data.images.mean).sample
    whole, _, *cut_out = (pixels[views[0]] for views in subject.photos)
    for one in cut_out:
        assert float((one - whole)[:, 48:80, 48:80].abs().mean()) < 0.15
        assert float((one - whole)[:, :20].abs().mean()) > 0.3


def test_cutouts_count_where_their_photos_mask_is_white(tmp_path: Path) -> None:
    data, _ = taught(tmp_path, "images.cutouts=1", "images.mask_loss=0.2")
    weights = data.loss_weights
    assert weights is not None and len(weights) == 3
    masked, whole, cut_out = (weights[views[0]] for views in data.subjects[0].photos)
    assert torch.equal(masked, cut_out)
    assert float(masked.min()) == float(torch.tensor(0.2)) and float(masked.max()) == 1
    assert torch.equal(whole, torch.ones_like(whole))


def test_without_masks_there_is_nothing_to_cut_out(tmp_path: Path) -> None:
    data, _ = taught(tmp_path, "images.cutouts=2", "images.mask_loss=1")
    assert len(data.subjects[0].photos) == 2


SCENES = "images.scenes=[in the snow, in space, on grass]"
QUICK = "prior.steps=4"


def test_a_masked_photo_is_shown_in_scenes_as_the_base_draws_them(tmp_path: Path) -> None:
    run, base = begun(
        tmp_path,
        "images.scene_cutouts=2",
        SCENES,
        QUICK,
        "images.templates=['a {identifier} {class}']",
        "images.cutouts=0",
    )
    drawn = draw_scenes(run, base)
    scenes = scenes_of(0, 0, 0, 2, ["in the snow", "in space", "on grass"])
    assert [one for one, _ in drawn[0, 0]] == scenes and len(set(scenes)) == 2
    # The second photo has no mask, and so no cut-outs.
    assert list(drawn) == [(0, 0)]
    data = encode_data(run, base, [[]], drawn)
    (sentence,), photos = data.subjects[0].sentences, data.subjects[0].photos
    assert [data.prompts[one] for one in sentence.photo_prompts[2:]] == [f"a sks dog {one}" for one in scenes]
    pixels = base.vae.decode(data.images.mean).sample
    whole = pixels[photos[0][0]]
    for (_, behind), views in zip(drawn[0, 0], photos[2:], strict=True):
        shown = pixels[views[0]]
        assert float((shown - whole)[:, 48:80, 48:80].abs().mean()) < 0.15
        assert float((shown - behind)[:, :20].abs().mean()) < 0.15 < float((shown - whole)[:, :20].abs().mean())


def test_scenes_are_drawn_once(tmp_path: Path) -> None:
    run, base = begun(tmp_path, "images.scene_cutouts=2", SCENES, QUICK)
    first = draw_scenes(run, base)
    (kept,) = run.layout.scenes_dir.iterdir()
    written = kept.stat().st_mtime_ns
    again = draw_scenes(run, base)
    for (scene, pixels), (other, others) in zip(first[0, 0], again[0, 0], strict=True):
        assert scene == other and torch.equal(pixels, others)
    assert [one.stat().st_mtime_ns for one in run.layout.scenes_dir.iterdir()] == [written]
    # A file that is damaged is drawn anew, the same.
    kept.write_bytes(kept.read_bytes()[:50])
    assert torch.equal(draw_scenes(run, base)[0, 0][0][1], first[0, 0][0][1])


def test_no_scenes_are_drawn_where_masks_are_not_used(tmp_path: Path) -> None:
    run, base = begun(tmp_path, "images.scene_cutouts=2", "images.mask_loss=1")
    assert draw_scenes(run, base) == {} and not run.layout.scenes_dir.exists()


def test_a_scene_that_cannot_be_read_is_told_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"images\.scenes, 'a \{rex\} in \{space\}'"):
        begun(tmp_path, "images.scene_cutouts=1", "images.scenes=['in {space}']")
    assert not list((tmp_path / "p" / "runs").glob("0*"))


def test_captions_are_taught_in_orders_of_their_words_and_photos_with_the_empty_prompt(tmp_path: Path) -> None:
    template = "images.templates=['a {identifier} {class}']"
    data, _ = taught(tmp_path, "images.caption_shuffle=words", "images.empty_share=0.1", template, "images.cutouts=1")
    (subject,) = data.subjects
    (sentence,) = subject.sentences
    assert data.prompts[data.empty_prompt or 0] == ""
    captioned = sentence.captioned_prompts[0]
    assert data.prompts[captioned] == "a sks dog on grass"
    orders = {data.prompts[one] for one in data.orders[captioned]}
    assert orders == {"a sks dog on grass", "a sks dog grass on"}
    # A photo without a caption has one order, a cutout those of its own.
    assert sentence.photo_prompts[0] not in data.orders and sentence.captioned_prompts[1] not in data.orders
    cutout = sentence.photo_prompts[2]
    assert "background" in data.prompts[cutout] and len({data.prompts[one] for one in data.orders[cutout]}) > 1


def test_a_caption_that_photos_share_has_one_set_of_orders(tmp_path: Path) -> None:
    template = "images.templates=['a {identifier} {class}']"
    run, base = begun(tmp_path, "images.caption_shuffle=words", "images.cutouts=0", template)
    (subject,) = run.subjects
    words = "a {rex} on some green grass near the sea"
    shared = [photo.model_copy(update={"caption": words}) for photo in subject.photos]
    both = replace(run, subjects=[subject.model_copy(update={"photos": shared})])
    data = encode_data(both, base, [[]], draw_scenes(both, base))
    (orders,) = data.orders.values()
    # All that is encoded is drawn from: the sentence alone, the caption, and the caption's four orders.
    assert len(orders) == 4
    assert {one for one, text in enumerate(data.prompts) if "grass" in text} == {*data.orders, *orders}


def test_by_default_there_are_no_other_orders_and_no_empty_prompt(tmp_path: Path) -> None:
    data, _ = taught(tmp_path)
    assert not data.orders and data.empty_prompt is None and "" not in data.prompts
