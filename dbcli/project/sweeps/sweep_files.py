"""Sweep files: many runs in one YAML file, read strictly, all faults together.

    name: rates                       # its folder under sweeps/
    profile: full                     # what holds for every run: subject, identifier, profile, settings …
    settings: {train.steps: 800}
    pictures: {suite: quick, count: 4, seed: 0}
    grid:                             # every axis multiplies the cells
      subject: [dog, cat]
      train.learning_rate: [1e-6, 5e-6]
      arrangement:                    # an axis of one's own: each label with what it sets
        with class images: {prior.enabled: true}
        without: {prior.enabled: false}

A cell is one run, or, under `runs`, a sequence of them in which one continues another (`from: previous`). A value
`$word` is filled in from the cell's axes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dbcli.errors import ConfigError, UsageError
from dbcli.project.files.names import printable
from dbcli.project.files.yaml_files import read_yaml
from dbcli.project.settings.profiles import shipped_folder
from dbcli.project.sweeps.faults import CELL_KEYS, Bundle, file_faults, shown

# What a mean over several cells is taken over where the file does not say: the rest are the rows of the table.
USUALLY_AVERAGED = ("subject", "train.seed")


@dataclass(frozen=True)
class Axis:
    """One direction of the grid: labels, and what each sets."""

    name: str
    points: tuple[tuple[str, Bundle], ...]


@dataclass(frozen=True)
class SweepImages:
    """What every cell draws: suites by name or path, prompts of one's own, pictures a prompt, first seed."""

    suites: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    count: int = 4
    seed: int | None = None


@dataclass(frozen=True)
class SweepFile:
    """A sweep as its file says it, checked for form; settings and subjects are checked when it is planned."""

    name: str
    about: str = ""
    shared: Bundle = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    average_over: tuple[str, ...] = USUALLY_AVERAGED
    pictures: SweepImages = SweepImages()
    judge: str | None = None
    interference: bool = False
    folder: Path | None = None

    def with_subjects(self, names: list[str]) -> SweepFile:
        """The same with other subjects: the axis `subject`, or the one subject of all runs, is replaced."""
        points = tuple((name, {"subject": name}) for name in names)
        if any(axis.name == "subject" for axis in self.axes):
            axes = tuple(Axis("subject", points) if axis.name == "subject" else axis for axis in self.axes)
            return replace(self, axes=axes)
        if "subject" in self.shared and "runs" not in self.shared:
            return replace(self, axes=(Axis("subject", points), *self.axes))
        raise UsageError(f"The sweep '{self.name}' names its subjects inside its runs; --subject cannot change them.")

    def with_settings(self, settings: Mapping[str, Any]) -> SweepFile:
        """The same with settings that win over the file's. UsageError for one that is an axis of the grid."""
        taken = {key for axis in self.axes for _, bundle in axis.points for key in bundle}
        for key in settings:
            if key in taken:
                raise UsageError(f"--set {key}: the grid of the sweep '{self.name}' sets it.", hint="change the file")
        last = Axis("", (("", dict(settings)),))
        return replace(self, axes=(*self.axes, last)) if settings else self


def shipped_sweeps() -> list[str]:
    """Return the names of the sweeps that come with the program, sorted."""
    return sorted(path.stem for path in (shipped_folder() / "sweeps").glob("*.yaml"))


def load_sweep(name_or_path: str) -> SweepFile:
    """Return a shipped sweep by name, or one from a YAML file.

    Raises UsageError for a name that is not shipped, one ConfigError with every fault of the file's form.
    """
    if name_or_path in shipped_sweeps():
        return read_sweep(shipped_folder() / "sweeps" / f"{name_or_path}.yaml")
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UsageError(f"The sweep {printable(name_or_path)} is not there.", hint=_shipped_hint(path.parent))
        return read_sweep(path)
    near = difflib.get_close_matches(name_or_path, shipped_sweeps(), n=1)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    raise UsageError(f"There is no sweep '{printable(name_or_path)}'.{guess}", hint=_shipped_hint())


def read_sweep(path: Path) -> SweepFile:
    """Return the sweep in a file. Raises one ConfigError with every fault: the place and the value found."""
    found = read_yaml(path)
    faults = list(file_faults(found))
    if faults:
        many = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
        raise ConfigError(f"The sweep {path} has {many}:\n" + "\n".join(f"  {one}" for one in faults))
    axes = tuple(_axis(name, points) for name, points in (found.get("grid") or {}).items())
    pictures = found.get("pictures") or {}
    return SweepFile(
        name=found["name"],
        about=str(found.get("about") or ""),
        shared={key: value for key, value in found.items() if key in CELL_KEYS},
        axes=axes,
        average_over=tuple(found.get("average_over") or USUALLY_AVERAGED),
        pictures=SweepImages(
            tuple(_listed(pictures.get("suite"))),
            tuple(pictures.get("prompts") or ()),
            pictures.get("count", SweepImages.count),
            pictures.get("seed"),
        ),
        judge=found.get("judge"),
        interference=found.get("interference", False),
        folder=path.parent,
    )


def _axis(name: str, points: Any) -> Axis:
    if isinstance(points, Mapping):
        return Axis(name, tuple((label, dict(bundle or {})) for label, bundle in points.items()))
    # A number alone says little in a table: "learning rate 1e-6", but "dog".
    title = name.rpartition(".")[2].replace("_", " ") + " " if "." in name else ""
    return Axis(name, tuple((f"{title}{shown(value)}", {name: value}) for value in points))


def _listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _shipped_hint(folder: Path = Path(".")) -> str:
    """The sweeps that ship, and the files that lie where one was looked for."""
    files = sorted(path.name for path in folder.glob("*.y*ml") if path.name != "dreambooth.yaml")
    beside = f"; in {folder}: {', '.join(files)}" if files else "; or a path to a .yaml file"
    return f"shipped: {', '.join(shipped_sweeps())}{beside}"
