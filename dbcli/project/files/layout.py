"""Where everything in a project lies: nobody else joins a path to its root or to the folder of its cache.

What lies inside a subject's, run's, suite's or sweep's own folder is named by the one file that writes and reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dbcli.errors import Refused, UsageError
from dbcli.project.files.names import check_name, printable

SETTINGS_NAME = "dreambooth.yaml"


@dataclass(frozen=True)
class Layout:
    """Every path of one project. Names are checked; no path leaves `root`, and none passes through a link.

    The methods raise UsageError or Refused for a bad name and Refused for a symbolic link below `root`.
    """

    root: Path

    @property
    def settings_file(self) -> Path:
        """The file that makes a folder a project."""
        return self._inside(SETTINGS_NAME)

    @property
    def subjects_dir(self) -> Path:
        return self._inside("subjects")

    def subject_dir(self, name: str) -> Path:
        return self._inside("subjects", check_name(name, "subject"))

    def subject_file(self, name: str) -> Path:
        return self._inside("subjects", check_name(name, "subject"), "subject.yaml")

    def photos_dir(self, name: str) -> Path:
        return self._inside("subjects", check_name(name, "subject"), "photos")

    def masks_dir(self, name: str) -> Path:
        """What of each photo is the subject: `0001.png` for the photo of that name, white where it is."""
        return self._inside("subjects", check_name(name, "subject"), "masks")

    def contact_sheet(self, name: str) -> Path:
        """The crops of a subject's photos on one sheet, for a person's eye only."""
        return self._inside("subjects", check_name(name, "subject"), "contact-sheet.png")

    @property
    def class_images_dir(self) -> Path:
        return self._inside("reg")

    def class_image_set_dir(self, key: str) -> Path:
        return self._inside("reg", check_name(key, "class image set"))

    def teacher_dir(self, set_key: str, key: str) -> Path:
        """What the base predicts for the images of a class image set, a folder a draw."""
        return self._inside("reg", check_name(set_key, "class image set"), check_name(f"teacher-{key}", "teacher"))

    @property
    def runs_dir(self) -> Path:
        return self._inside("runs")

    def run_dir(self, name: str) -> Path:
        return self._inside("runs", check_name(name, "run"))

    def run_file(self, name: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "run.json")

    def events_file(self, name: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "events.jsonl")

    def checkpoints_dir(self, name: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "checkpoints")

    def weights_dir(self, name: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "weights")

    def images_dir(self, name: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "images")

    @property
    def base_images_dir(self) -> Path:
        """Images of the bare base."""
        return self._inside("images")

    @property
    def exports_dir(self) -> Path:
        return self._inside("exports")

    @property
    def features_dir(self) -> Path:
        """What judges computed of images and photos."""
        return self._inside(".cache", "features")

    @property
    def blanked_photos_dir(self) -> Path:
        """Photos with grey backgrounds."""
        return self._inside(".cache", "blanked")

    @property
    def base_files_file(self) -> Path:
        """The files of the base, remembered by content."""
        return self._inside(".cache", "base-files.json")

    def previews_dir(self, name: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "previews")

    def probes_dir(self, name: str) -> Path:
        """What was measured in training: probes.json, the probes' pictures, and weights that may become the result."""
        return self._inside("runs", check_name(name, "run"), "probes")

    def eval_dir(self, name: str, suite: str) -> Path:
        return self._inside("runs", check_name(name, "run"), "eval", check_name(suite, "suite"))

    def evals_dir(self, name: str) -> Path:
        """What a run was scored by: a folder a suite."""
        return self._inside("runs", check_name(name, "run"), "eval")

    def comparison_dir(self, name: str, suite: str) -> Path:
        """Runs side by side under one suite: comparison.json, grid.png, report.html."""
        return self._inside("comparisons", check_name(name, "comparison"), check_name(suite, "suite"))

    @property
    def sweeps_dir(self) -> Path:
        return self._inside("sweeps")

    def sweep_dir(self, name: str) -> Path:
        """The table, page and grid of one sweep or benchmark."""
        return self._inside("sweeps", check_name(name, "sweep"))

    def cell_file(self, key: str) -> Path:
        """What one cell ended with, whichever sweep asked for it."""
        return self._inside("sweeps", ".cells", f"{check_name(key, 'cell')}.json")

    def sweep_seed_file(self, name: str) -> Path:
        """What a random seed of a sweep became: a second start goes on with it."""
        return self.sweep_dir(name) / "seed.json"

    def sweep_suite_file(self, name: str, suite: str) -> Path:
        """A suite of a sweep that does not ship: every machine that draws reads it there."""
        return self._inside("sweeps", check_name(name, "sweep"), "suites", f"{check_name(suite, 'suite')}.yaml")

    def sweep_lock(self, name: str) -> Path:
        """Held by the one process that carries a sweep out."""
        return self._inside("sweeps", check_name(name, "sweep"), ".lock")

    def work_lock(self, key: str) -> Path:
        """Held while one run or one cell of a sweep is made, on whichever machine."""
        return self._inside("sweeps", ".locks", f"{check_name(key, 'cell')}.lock")

    @property
    def cache_dir(self) -> Path:
        """What may be deleted at any time: latents, text embeddings, features."""
        return self._inside(".cache")

    @property
    def word_strengths(self) -> Path:
        """What rare words were measured to mean to the base."""
        return self._inside(".cache", "word-strengths.json")

    @property
    def prompt_history(self) -> Path:
        """The prompts typed in `generate --interactive`."""
        return self._inside(".cache", "prompts.history")

    @property
    def project_lock(self) -> Path:
        """Held while subjects or their identifiers change."""
        return self._inside(".lock")

    @property
    def numbering_lock(self) -> Path:
        """Held for the moment in which a new run takes its number."""
        return self._inside("runs", ".lock")

    def run_lock(self, name: str) -> Path:
        """Held by the one process that writes into a run."""
        return self._inside("runs", check_name(name, "run"), ".lock")

    def class_image_set_lock(self, key: str) -> Path:
        """Held by the one process that generates class images into a set."""
        return self._inside("reg", check_name(key, "class image set"), ".lock")

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
