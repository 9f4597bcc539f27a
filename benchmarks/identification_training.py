"""A subject taught by the program or by diffusers' script, and what draws with the result, for `identification.py`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.metrics.dataset import DatasetSubject

sys.path.insert(0, str(Path(__file__).resolve().parent))
from peer import adamw_rate, script_command  # noqa: E402

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout

PLAIN = "a {identifier} {class}"
SEEDS, FIRST_SEED = 4, 1
# What the embedded base is drawn with, also where a script's folder is a base of its own.
DRAWING = {"sampler": "ddim", "eta": 0.0, "steps": 25, "guidance": 3.0, "batch_size": 8}
IDENTIFIER = "sks"


@dataclass(frozen=True)
class Settings:
    """What decides a row: base, settings beside the profile's, the script in the program's place, another method."""

    base: str
    sets: tuple[str, ...]
    script: str | None = None
    method: str | None = None


@dataclass(frozen=True)
class Trained:
    """A subject's result: draws prompts with it and with the base as it was; seconds from start to weights."""

    draw: Callable[[Sequence[str]], dict[str, list[Path]]]
    draw_before: Callable[[Sequence[str]], dict[str, list[Path]]]
    plain: str
    seconds: float


def trained_by_program(subject: DatasetSubject, settings: Settings, work: Path) -> Trained:
    """As `dreambooth add-subject` and `dreambooth train` do, in the project of all."""
    from dbcli.workflows.progress import Silence
    from dbcli.workflows.training.plan import plan_training
    from dbcli.workflows.training.request import TrainRequest
    from dbcli.workflows.training.run import train_run

    layout, quiet = project(work / "project", settings.base), Silence()
    added(layout, subject)
    # Probes change nothing of what the embedded base's profiles end with, and take their time.
    sets = ["probe.judge=off", *settings.sets]
    began = time.perf_counter()
    plan = plan_training(layout, TrainRequest([subject.name], sets=sets, method=settings.method, allow_collision=True))
    run = train_run(layout, plan, quiet, offline=True).name
    return of_run(layout, run, time.perf_counter() - began)


def added(layout: Layout, subject: DatasetSubject) -> None:
    """Adds a subject with its masks and captions, unless it is there."""
    from dbcli.project.subjects.subject_store import list_subjects
    from dbcli.workflows.progress import Silence
    from dbcli.workflows.subjects.annotate import annotate, load_annotators
    from dbcli.workflows.subjects.manage import add_subject

    if subject.name not in [one.name for one in list_subjects(layout)]:
        new, _ = add_subject(
            layout, subject.name, subject.class_noun, list(subject.photos), IDENTIFIER, allow_collision=True
        )
        annotate(layout, new.subject, load_annotators(layout, offline=True), Silence())


def of_run(layout: Layout, run: str, seconds: float) -> Trained:
    """What a run of the program came to."""
    return Trained(partial(_drawn, layout, run), partial(_drawn, layout, "base"), PLAIN, seconds)


def trained_by_script(subject: DatasetSubject, settings: Settings, work: Path) -> Trained:
    """As diffusers' train_dreambooth.py does: the photos as they are, and the sentence that is drawn."""
    from dbcli.diffusion.bases.folder import embedded_folder
    from dbcli.project.settings.profiles import load_profile

    profile = load_profile("tiny")
    base, noun = embedded_folder() if settings.base == "tiny" else Path(settings.base), f"a {subject.class_noun}"
    plain, out = f"a {IDENTIFIER} {subject.class_noun}", work / f"{subject.name}-weights"
    photos = work / f"{subject.name}-photos"
    photos.mkdir(exist_ok=True)
    for photo in subject.photos:
        (photos / photo.name).write_bytes(photo.read_bytes())
    options = {
        "pretrained_model_name_or_path": base,
        "instance_data_dir": photos,
        "instance_prompt": plain,
        "class_data_dir": work / f"{subject.name}-class-images",
        "class_prompt": noun,
        "num_class_images": profile["prior"]["images"],
        "output_dir": out,
        "resolution": resolution_of(settings.base),
        "train_batch_size": profile["train"]["batch_size"],
        "max_train_steps": profile["train"]["steps"],
        "learning_rate": adamw_rate("full", profile["train"]),
        "seed": 0,
        **dict(one.split("=", 1) for one in settings.sets),
    }
    assert settings.script is not None  # which is why this is called
    command = script_command(Path(settings.script), options)
    began = time.perf_counter()
    with open(work / f"{subject.name}.log", "wb") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    seconds = time.perf_counter() - began
    after, before = (
        project(work / f"{subject.name}-{name}", str(at)) for name, at in (("after", out), ("before", base))
    )
    return Trained(partial(_drawn, after, "base"), partial(_drawn, before, "base"), plain, seconds)


def project(folder: Path, base: str) -> Layout:
    """The project of a base, created if it is not there yet."""
    from dbcli.project.files.layout import Layout
    from dbcli.workflows.setup.open import init_project

    if not folder.exists():
        init_project(folder, base, None, offline=True)
    return Layout(folder.resolve())


def _drawn(layout: Any, run: str, prompts: Sequence[str]) -> dict[str, list[Path]]:
    """The pictures of each prompt, by a run or the base."""
    from dbcli.workflows.generation.generate import generate
    from dbcli.workflows.generation.request import GenerateRequest, RunSelection
    from dbcli.workflows.progress import Silence

    request = GenerateRequest(prompts, RunSelection((run,)), {"count": SEEDS, **DRAWING}, seed=FIRST_SEED)
    images = generate(layout, request, Silence(), offline=True).images
    found: dict[str, list[Path]] = {}
    for image in images:
        found.setdefault(image.recipe.prompt, []).append(image.path)
    return found


def resolution_of(base: str) -> int:
    """Pixels a side that a base draws."""
    from dbcli.diffusion.bases.base import latent_shape

    return int(latent_shape(base, None)[2])
