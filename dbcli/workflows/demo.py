"""The main job on the embedded base with the bundled photos: what a stranger sees first."""

import json
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.evaluation.evaluate import Evaluation, evaluate
from dbcli.workflows.evaluation.request import EvaluateRequest, ScoringOptions
from dbcli.workflows.generation.generate import Generated, generate
from dbcli.workflows.generation.request import GenerateRequest, RunSelection
from dbcli.workflows.images.grids import photos_of, write_sheet
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.open import init_project
from dbcli.workflows.subjects.annotate import annotate, load_annotators
from dbcli.workflows.subjects.manage import add_subject, list_subjects
from dbcli.workflows.training.plan import plan_training
from dbcli.workflows.training.request import TrainRequest
from dbcli.workflows.training.run import train_run

TOKEN = "sks"
# Each is drawn with the subject's words and, for comparison, with the class noun alone.
PLACES = ("", " in the snow", " on the beach", " in space", " in front of a brick wall")
IMAGES_PER_PROMPT = 4


@dataclass(frozen=True)
class Demonstration:
    """What the demo made, the subject's words in a prompt, and how long each part took."""

    project: Path
    run: str
    words: str
    grid: Path
    evaluation: Evaluation | None
    seconds: dict[str, float]


def bundled_subjects() -> list[dict[str, Any]]:
    """The subjects whose photos ship with the program: name, class, absolute files, licence."""
    folder = Path(str(resources.files("dbcli"))) / "embedded" / "photos"
    listed = json.loads((folder / "subjects.json").read_text(encoding="utf-8"))
    return [{**one, "files": [folder / file for file in one["files"]]} for one in listed]


def run_demo(folder: Path, progress: Progress) -> Demonstration:
    """Makes (or goes on in) a project in `folder`: one subject learnt, drawn in five places, and scored."""
    began = time.perf_counter()
    subject = bundled_subjects()[0]
    layout = Layout(folder.expanduser().resolve())
    if not layout.settings_file.exists():
        init_project(folder, "tiny", None, offline=True)
        progress.note(f"Created the project {layout.root} on the embedded base, tiny (128 px).")
    if subject["name"] not in [known.name for known in list_subjects(layout)]:
        added, _ = add_subject(layout, subject["name"], subject["class"], subject["files"], TOKEN)
        annotate(layout, added.subject, load_annotators(layout, offline=True), progress)
        progress.note(f"Added {len(subject['files'])} photos of one {subject['class']}; its identifier is {TOKEN}.")
    plan = plan_training(layout, TrainRequest([subject["name"]], [TOKEN]))
    record = train_run(layout, plan, progress, offline=True)
    trained = time.perf_counter()
    prompts = [f"a {{{subject['name']}}}{place}" for place in PLACES]
    after = _generate(layout, prompts, record.name, progress)
    # Without the identifier the tuned model should still draw the class as the bare base does.
    members = _generate(layout, [f"a {subject['class']}"], record.name, progress)
    before = _generate(layout, [f"a {subject['class']}"], "base", progress)
    grid = _sheet(layout, record.name, after, members, before)
    pictured = time.perf_counter()
    evaluation = _score(layout, record.name, progress)
    seconds = {"train": trained - began, "draw": pictured - trained, "score": time.perf_counter() - pictured}
    return Demonstration(layout.root, record.name, plan.subjects[0].words.text, grid, evaluation, seconds)


def _generate(layout: Layout, prompts: list[str], run: str, progress: Progress) -> Generated:
    options = {"count": IMAGES_PER_PROMPT}
    return generate(layout, GenerateRequest(prompts, RunSelection((run,)), options, seed=0), progress, offline=True)


def _sheet(layout: Layout, run: str, after: Generated, members: Generated, before: Generated) -> Path:
    from dbcli.project.runs.run_store import load_run

    rows: dict[str, list[Path]] = {}
    for label, part in (("before: {}", before), ("after: {}", after), ("after: {}", members)):
        for image in part.images:
            rows.setdefault(label.format(image.recipe.prompt), []).append(image.path)
    path = layout.images_dir(run) / "grid-demo.png"
    write_sheet(
        path, photos_of(layout, load_run(layout, run)), rows, title=f"DreamBooth on {load_settings(layout).base}"
    )
    return path


def _score(layout: Layout, run: str, progress: Progress) -> Evaluation:
    request = EvaluateRequest(run, ScoringOptions(["demo"], judge="tiny", count=IMAGES_PER_PROMPT, seed=0))
    return evaluate(layout, request, progress, offline=True)[0]
