"""Where everything in a project lies: nobody else joins a path to its root or to the folder of its cache.

What lies inside a subject's, run's, suite's or sweep's own folder is named by the one file that writes and reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dbcli.errors import Refused, UsageError
from dbcli.project.files.names import check_name, printable

SETTINGS_NAME = "dreambooth.yaml"


class _ProjectPath:
    """A path that every project has once, given relative to its root."""

    def __init__(self, path: str) -> None:
        self._parts = path.split("/")

    def __get__(self, layout: Layout, owner: type[Layout]) -> Path:
        return layout._inside(*self._parts)


class _PathByName:
    """A path of each run, subject and the like: called with a name, which is checked and stands for `{run}`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, layout: Layout, owner: type[Layout]) -> Callable[[str], Path]:
        def path_of(name: str) -> Path:
            path = re.sub(r"\{(.+?)\}", lambda what: check_name(name, what[1]), self._path)
            return layout._inside(*path.split("/"))

        return path_of


@dataclass(frozen=True)
class Layout:
    """Every path of one project. Names are checked; no path leaves `root`, and none passes through a link.

    The paths raise UsageError or Refused for a bad name and Refused for a symbolic link below `root`.
    """

    root: Path

    # The file that makes a folder a project.
    settings_file = _ProjectPath(SETTINGS_NAME)
    # Held while subjects or their identifiers change.
    project_lock = _ProjectPath(".lock")
    # Images of the bare base.
    base_images_dir = _ProjectPath("images")
    exports_dir = _ProjectPath("exports")

    subjects_dir = _ProjectPath("subjects")
    subject_dir = _PathByName("subjects/{subject}")
    subject_file = _PathByName("subjects/{subject}/subject.yaml")
    photos_dir = _PathByName("subjects/{subject}/photos")
    # What of each photo is the subject: `0001.png` for the photo of that name, white where it is.
    masks_dir = _PathByName("subjects/{subject}/masks")
    # The crops of a subject's photos on one sheet, for a person's eye only.
    contact_sheet = _PathByName("subjects/{subject}/contact-sheet.png")

    class_images_dir = _ProjectPath("reg")
    class_image_set_dir = _PathByName("reg/{class image set}")
    # Held by the one process that generates class images into a set.
    class_image_set_lock = _PathByName("reg/{class image set}/.lock")

    runs_dir = _ProjectPath("runs")
    # Held for the moment in which a new run takes its number.
    numbering_lock = _ProjectPath("runs/.lock")
    # The highest number that a run ever had: that of a removed run is no other's.
    run_number_file = _ProjectPath("runs/.number.json")
    run_dir = _PathByName("runs/{run}")
    run_file = _PathByName("runs/{run}/run.json")
    # Held by the one process that writes into a run.
    run_lock = _PathByName("runs/{run}/.lock")
    events_file = _PathByName("runs/{run}/events.jsonl")
    checkpoints_dir = _PathByName("runs/{run}/checkpoints")
    weights_dir = _PathByName("runs/{run}/weights")
    images_dir = _PathByName("runs/{run}/images")
    previews_dir = _PathByName("runs/{run}/previews")
    # What was measured in training: probes.json, the probes' pictures, and weights that may become the result.
    probes_dir = _PathByName("runs/{run}/probes")
    # What a run was scored by: a folder a suite.
    evals_dir = _PathByName("runs/{run}/eval")

    # Runs side by side: a folder for each choice of them, with a folder a suite.
    comparisons_dir = _ProjectPath("comparisons")

    sweeps_dir = _ProjectPath("sweeps")
    # The table, page and grid of one sweep or benchmark.
    sweep_dir = _PathByName("sweeps/{sweep}")
    # What a random seed of a sweep became: a second start goes on with it.
    sweep_seed_file = _PathByName("sweeps/{sweep}/seed.json")
    # Held by the one process that carries a sweep out.
    sweep_lock = _PathByName("sweeps/{sweep}/.lock")
    # What one cell ended with, whichever sweep asked for it.
    cell_file = _PathByName("sweeps/.cells/{cell}.json")
    # Held while one run or one cell of a sweep is made, on whichever machine.
    work_lock = _PathByName("sweeps/.locks/{cell}.lock")

    # What may be deleted at any time: latents, text embeddings, features.
    cache_dir = _ProjectPath(".cache")
    # What judges computed of images and photos.
    features_dir = _ProjectPath(".cache/features")
    # Photos with grey backgrounds.
    blanked_photos_dir = _ProjectPath(".cache/blanked")
    # The files of the base, remembered by content.
    base_files_file = _ProjectPath(".cache/base-files.json")
    # What rare words were measured to mean to the base.
    word_strengths = _ProjectPath(".cache/word-strengths.json")
    # Images of a class by the base itself, and its predictions, beside which words are measured.
    measuring_dir = _ProjectPath(".cache/measuring")
    # Scenes by the base itself, in front of which cut-out subjects are shown.
    scenes_dir = _ProjectPath(".cache/scenes")
    # The prompts typed in `generate --interactive`.
    prompt_history = _ProjectPath(".cache/prompts.history")

    def teacher_dir(self, set_key: str, key: str) -> Path:
        """What the base predicts for the images of a class image set, a folder a draw."""
        return self._inside("reg", check_name(set_key, "class image set"), check_name(f"teacher-{key}", "teacher"))

    def eval_dir(self, name: str, suite: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "eval", check_name(suite, "suite"))

    def comparison_dir(self, name: str, suite: str) -> Path:
        """Runs side by side under one suite: comparison.json, grid.png, report.html."""
        return self._inside("comparisons", check_name(name, "comparison"), check_name(suite, "suite"))

    def sweep_suite_file(self, name: str, suite: str) -> Path:
        """A suite of a sweep that does not ship: every machine that draws reads it there."""
        return self._inside("sweeps", check_name(name, "sweep"), "suites", f"{check_name(suite, 'suite')}.yaml")

    def shown(self, path: Path) -> str:
        """Return `path` as a person sees it: relative to the project where it lies inside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _inside(self, *parts: str) -> Path:
        path = self.root
        for part in parts:
            path = path / part
            # A link could lead anywhere, and a later write would follow it out of the project.
            if path.is_symlink():
                raise Refused(
                    f"{path} is a symbolic link; nothing in a project is read or written through links.",
                    hint="move the real folder there, or keep the whole project on the other disk",
                )
        return path


def find_project(start: Path) -> Layout:
    """Return the layout of the nearest folder, `start` or one above it, that holds `dreambooth.yaml`.

    Raises UsageError where there is none.
    """
    folder = start.expanduser().resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / SETTINGS_NAME).is_file():
            return Layout(candidate)
    raise UsageError(
        f"No project here: no {SETTINGS_NAME} in {printable(str(folder), 200)} or a folder above it.",
        hint="dreambooth init my-project creates one; -C chooses another folder",
    )
