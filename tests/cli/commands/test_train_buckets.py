"""`images.buckets: auto` from the command line: photos of five shapes, class images of their sizes, and a resume."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from dbcli.diffusion.training.trainer import Trainer
from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import load_settings, save_settings
from dbcli.project.subjects.subject_store import load_subject
from dbcli.workflows.progress import Silence
from dbcli.workflows.subjects.photo_review import review_photos
from dbcli.workflows.training import run as training
from dbcli.workflows.training.data import TrainingData
from tests.cli.made_projects import command
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]
SHAPES = [(400, 300), (300, 400), (300, 300), (480, 270), (240, 360)]
# The small base is of 64 px and halves its latents of 8 px once.
SIZES = {(48, 64), (64, 48), (64, 64), (80, 48)}
TRAIN = [
    *("--subject", "dog", "--method", "full", "--steps", 6, "--set=images.buckets=auto", "--set=train.batch_size=2"),
    *("--set=prior.images=8", "--set=prior.steps=1", "--set=prior.batch_size=2", "--set=train.accumulation=2"),
    *("--set=train.checkpoint_every=2", "--set=train.learning_rate=0.003", "--set=draw.steps=2", "--quiet"),
]


def photo(size: tuple[int, int], colour: tuple[int, int, int] = (40, 90, 160)) -> Image.Image:
    """A circle in the middle: squashed, it would be none."""
    image = Image.new("RGB", size, colour)
    x, y = size[0] / 2, size[1] / 2
    ImageDraw.Draw(image).ellipse((x - 60, y - 60, x + 60, y + 60), fill=(250, 250, 250))
    return image


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with five photos of five shapes and one run of them."""
    folder = tmp_path_factory.mktemp("buckets")
    (folder / "in").mkdir()
    for number, size in enumerate(SHAPES):
        photo(size, (40 * number, 90, 160)).save(folder / "in" / f"{number}.png")
    project = folder / "myproj"
    command("init", project, "--base", write_small_base(folder / "base"), "--quiet")
    command("-C", project, "add-subject", "dog", "--class", "dog", "--token", "sks", folder / "in", "--quiet")
    command("-C", project, "train", *TRAIN)
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(made, tmp_path / "p"))
    monkeypatch.chdir(copy)
    return copy


def sha_of(project: Path, run: str) -> dict[str, str]:
    folder = project / "runs" / run / "weights"
    files = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def class_images(project: Path) -> dict[tuple[int, int], int]:
    """How many class images there are of each size."""
    found: dict[tuple[int, int], int] = {}
    for file in (project / "reg").glob("*/*.png"):
        with Image.open(file) as image:
            found[image.size] = found.get(image.size, 0) + 1
    return found


def seen(trainer: Trainer, steps: int) -> list[set[tuple[int, ...]]]:
    """The shapes of the latents in each micro-batch."""
    batches, images = trainer.inputs.batches, trainer.inputs.images
    rows = [batches.subject_rows(step) + batches.prior_rows(step) for step in range(steps)]
    return [{tuple(images.shape_of(row.image)) for row in own} for own in rows]


def test_class_images_are_drawn_in_the_sizes_of_the_photos_as_many_as_without(made: Path) -> None:
    assert set(class_images(made)) == SIZES
    assert sum(class_images(made).values()) == 8
    # Two of five photos, 3:4 and 2:3, have one size: under both sentences 8 / 2 * 2 / 5 images, rounded.
    assert class_images(made)[48, 64] in (2, 3, 4)


def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, shapes = Trainer.step, []

    def stopped(trainer: Trainer) -> Any:
        shapes.extend(seen(trainer, 12))
        os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        assert run("train", *TRAIN).code == 143
    # No micro-batch has two sizes, and the run sees more than one.
    assert all(len(own) == 1 for own in shapes)
    assert {shape for own in shapes for shape in own} <= {(4, height // 8, width // 8) for width, height in SIZES}
    assert len({shape for own in shapes for shape in own}) > 1
    more = run("train", "--resume", 2, "--quiet")
    assert more.code == 0, more.err
    assert json.loads((project / "runs" / "0002-dog" / "run.json").read_text())["step"] == 6
    assert sha_of(project, "0002-dog") == sha_of(project, "0001-dog")


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[TrainingData]:
    """What runs learnt from, one after the other."""
    found: list[TrainingData] = []
    encode = training.encode_data

    def kept(*given: Any) -> TrainingData:
        found.append(encode(*given))
        return found[-1]

    monkeypatch.setattr(training, "encode_data", kept)
    return found


def test_the_frame_of_a_photo_says_what_was_cut(run: Run, project: Path, taught: list[TrainingData]) -> None:
    assert run("train", *TRAIN, "--set=prior.enabled=false").code == 0
    (data,) = taught
    frames = [data.frames[views[0]] for views in data.subjects[0].photos]
    # 400 x 300 is 4:3 as 64 x 48 is: nothing is cut. 480 x 270 as 80 x 48 is scaled by 48 / 270 to 85.3 px: 2.67 of
    # them are left on either side. 240 x 360 as 48 x 64 is scaled by 48 / 240 to 72 px: 4 are left above and below.
    assert frames == [
        (300, 400, 0, 0, 48, 64),
        (400, 300, 0, 0, 64, 48),
        (300, 300, 0, 0, 64, 64),
        (270, 480, 0, 3, 48, 80),
        (360, 240, 4, 0, 64, 48),
    ]


def test_a_teacher_s_predictions_are_stored_for_the_class_images_of_every_size(run: Run, project: Path) -> None:
    teacher = ["--set=prior.source=teacher", "--set=prior.teacher_draws=2"]
    done = run("train", *TRAIN, *teacher)
    assert done.code == 0, done.err
    shapes = {
        tuple(load_file(file)["predictions"].shape[1:])
        for file in (project / "reg").glob("*/teacher-*/draw-*/predictions.safetensors")
    }
    assert shapes == {(4, height // 8, width // 8) for width, height in SIZES}
    again = run("train", *TRAIN, *teacher)
    assert again.code == 0, again.err
    assert sha_of(project, "0002-dog") == sha_of(project, "0003-dog")


def test_own_class_photos_are_shown_at_the_size_that_fits_them_best(
    run: Run, project: Path, tmp_path: Path, taught: list[TrainingData]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for number, size in enumerate([(400, 300), (300, 400), (310, 300)]):
        photo(size, (9, 30 * number, 9)).save(own / f"{number}.png")
    done = run("train", *TRAIN, f"--set=prior.folder={own}")
    assert done.code == 0, done.err
    shown = {size: sorted(file.name for file, at in taught[0].class_images if at == size) for size in SIZES}
    assert shown[64, 48] == ["000000.png"] and shown[48, 64] == ["000001.png"] and shown[64, 64] == ["000002.png"]
    # None is as wide as 16:9: all are cut to it.
    assert shown[80, 48] == ["000000.png", "000001.png", "000002.png"]


def test_masks_and_cutouts_have_the_sizes_of_their_photos(run: Run, project: Path) -> None:
    masks = project / "subjects" / "dog" / "masks"
    masks.mkdir()
    for number, size in enumerate(SHAPES[:2], start=1):
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).ellipse((size[0] / 2 - 60, size[1] / 2 - 60, size[0] / 2 + 60, size[1] / 2 + 60), fill=255)
        mask.save(masks / f"{number:04d}.png")
    for crop in ("center", "subject", "random"):
        own = [f"--set=images.crop={crop}", "--set=images.cutouts=1", "--set=images.flip=true"]
        done = run("train", *TRAIN, *own, "--set=train.checkpoint_every=0")
        assert done.code == 0, done.err


def test_an_estimate_counts_the_largest_size_and_reg_draws_what_a_run_will_need(run: Run, project: Path) -> None:
    shutil.rmtree(project / "reg")
    made = run("reg", "make", "--class", "dog", "--set=images.buckets=auto", "--set=prior.images=8", "--json")
    assert made.code == 0, made.err
    assert set(class_images(project)) == SIZES
    plain, with_sizes = (
        run("train", *TRAIN, f"--set=images.buckets={one}", "--dry-run", "--json").document for one in ("off", "auto")
    )
    # The square is among the sizes, and the largest of them.
    assert plain["outlook"]["recipes"][0]["phases_bytes"] == with_sizes["outlook"]["recipes"][0]["phases_bytes"]


def test_the_sheet_shows_photos_in_their_shapes_and_nothing_is_much_cropped(run: Run, project: Path) -> None:
    layout = Layout(project)
    settings = load_settings(layout)
    settings.overrides["images.buckets"] = "auto"
    save_settings(layout, settings)
    review = review_photos(layout, load_subject(layout, "dog"), [f"{n}.png" for n in range(5)], Silence())
    assert "much-cropped" not in {fault.kind for fault in review.faults}
    sheet = np.asarray(Image.open(review.sheet).convert("RGB")).astype(int)
    # Tiles of 192 px, from 16, 48 on: the first, 576 x 448, is 149 px high, 21 below the tile's edge; the second, 384 x
    # 576, is 128 px wide, 32 right of it. A frame of 3 px marks photos of too few pixels.
    blue = np.abs(sheet - [20, 90, 160]).max(-1) <= 24
    assert not blue[48:69, 16:208].any() and blue[74:90, 20:204].all()
    assert not blue[48:240, 220:252].any() and blue[52:236, 256:270].all()
