"""What a photo with a mask is shown as: itself, and its subject on plain colours, which a caption names."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.cutouts import colours_of
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


def taught(folder: Path, *sets: str) -> tuple[TrainingData, Base]:
    """What a run with these settings would learn from two photos, of which the first has a mask and a caption."""
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
    plan = plan_training(layout, TrainRequest(["rex"], sets=["images.crop=center", "prior.enabled=false", *sets]))
    record = load_run(layout, new_run(layout, plan))
    base = load_project_base(layout, Silence(), offline=True)
    run = RunContext(layout, record, plan.profile, [subject], Silence(), StopSignal())
    return encode_data(run, base, [[]]), base


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
