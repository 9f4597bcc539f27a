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

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dbcli.errors import ConfigError, DreamboothError, UsageError
from dbcli.hints import nearest
from dbcli.project.files.names import check_name, printable
from dbcli.project.files.records import fault_text
from dbcli.project.files.yaml_files import read_yaml
from dbcli.project.settings.profile_settings import Positive, Seed
from dbcli.project.settings.profiles import (
    EARLIER_NAMES,
    flattened,
    known_keys,
    nearest_key,
    shipped_folder,
    shipped_or_own_file,
)

# What a mean over several cells is taken over where the file does not say: the rest are the rows of the table.
USUALLY_AVERAGED = ["subject", "train.seed"]
MAX_CELLS = 10_000
# The kind of a fault whose words name the value that was found.
NOT_COMPARED = "not_compared"
Text = Annotated[str, Field(pattern=r"\S")]


def _known(key: str) -> str:
    if key not in known_keys():
        raise PydanticCustomError("extra_forbidden", "no setting")
    return key


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _subjects(value: object) -> object:
    names = _listed(value)
    if not isinstance(names, list) or not names or not all(isinstance(one, str) and one.strip() for one in names):
        raise ValueError("should be a subject's name, or a list of names that learn together")
    return names


def _identifiers(value: object) -> object:
    words = list(value.values()) if isinstance(value, dict) else [value]
    if not words or not all(isinstance(one, str) and one.strip() for one in words):
        raise ValueError("should be a word, or a word for each subject")
    return value


def _not_compared(text: str) -> PydanticCustomError:
    # As a value, for labels may hold braces.
    return PydanticCustomError(NOT_COMPARED, "{text}", {"text": printable(text, 400)})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RunPart(_Part):
    """What the file, a point of an axis, or one run of a sequence sets. Settings are by dotted key."""

    subject: Annotated[list[str] | None, BeforeValidator(_subjects)] = None
    identifier: Annotated[str | dict[str, str] | None, BeforeValidator(_identifiers)] = None
    profile: Text | None = None
    settings: dict[Annotated[str, AfterValidator(_known)], Any] = Field(default_factory=dict)
    allow_collision: bool = False
    words: dict[str, Text] = Field(default_factory=dict, alias="$", description="`$word` -> what is filled in for it")

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, found: Any) -> Any:
        """Settings and `$words` stand between the other keys."""
        if not isinstance(found, Mapping):
            return {} if found is None else found
        known, given = known_keys(), found.get("settings", {})
        found = {EARLIER_NAMES.get(key, key): value for key, value in found.items()}
        beside = {key: value for key, value in found.items() if key in known}
        words = {key: value for key, value in found.items() if key.startswith("$")}
        rest = {key: value for key, value in found.items() if key not in beside and key not in words}
        settings = flattened(given) | beside if isinstance(given, Mapping) else given
        return rest | {"settings": settings, "$": words}


class StagePart(RunPart):
    """One run of a sequence."""

    continues: Literal["previous"] | None = Field(default=None, alias="from")
    rehearsal: bool = True


class CellPart(RunPart):
    """What a cell is made of: one run, or a sequence of them."""

    runs: list[StagePart] | None = Field(default=None, min_length=1)

    @field_validator("runs")
    @classmethod
    def _first_begins(cls, runs: list[StagePart] | None) -> list[StagePart] | None:
        if runs and runs[0].continues:
            raise ValueError("run 1, from: there is no run before it")
        return runs


class SweepImages(_Part):
    """What every cell draws: suites by name or path, prompts of one's own, images per prompt, first seed."""

    suite: Annotated[list[Text], BeforeValidator(_listed)] = []
    prompts: list[Text] = []
    count: Positive = 4
    seed: Seed | None = None


Axis = dict[str, CellPart]


def _points(points: object) -> object:
    """The points of an axis by label; of an axis of values `[{name: value}, …]` each value is its label."""
    if not isinstance(points, list | Mapping) or not points:
        raise ValueError("should be a list of values or a mapping of labels, and not empty")
    if isinstance(points, Mapping):
        return points
    found = {}
    for name, value in (pair for point in points for pair in point.items()):
        # A number alone says little in a table: "learning rate 1e-6", but "dog".
        title = name.rpartition(".")[2].replace("_", " ") + " " if "." in name else ""
        label = f"{title}{shown(value)}"
        if label in found:
            raise ValueError(f"{printable(shown(value))} is given twice")
        found[label] = {name: value}
    return found


class SweepFile(CellPart):
    """A sweep as its file says it, checked for form; settings and subjects are checked when it is planned."""

    name: str
    about: str = ""
    average_over: list[str] = USUALLY_AVERAGED
    pictures: SweepImages = SweepImages()
    judge: str | None = None
    interference: bool = False
    grid: dict[str, Annotated[Axis, BeforeValidator(_points)]] = Field(default_factory=dict, validate_default=True)
    # After the grid, by which it is checked.
    against: Text | None = Field(default=None, description="the label of the point that the others are compared with")
    _folder: Path | None = PrivateAttr(default=None)

    @field_validator("name")
    @classmethod
    def _as_folder(cls, name: str) -> str:
        try:
            return check_name(name, "sweep")
        except DreamboothError as error:
            raise ValueError(error.message) from error

    @field_validator("average_over")
    @classmethod
    def _axes(cls, names: list[str], info: ValidationInfo) -> list[str]:
        for name in names:
            if name not in (info.context or ()):
                raise ValueError(f"{printable(name)} is not an axis of the grid")
        return names

    @field_validator("grid", mode="before")
    @classmethod
    def _with_names(cls, grid: Any) -> Any:
        """Each value of an axis under the key that it is a value of."""
        if not isinstance(grid, Mapping):
            return {} if grid is None else grid
        return {
            name: [{name: value} for value in points] if isinstance(points, list) else points
            for name, points in grid.items()
        }

    @field_validator("grid")
    @classmethod
    def _not_too_large(cls, grid: dict[str, Axis]) -> dict[str, Axis]:
        cells = prod(len(points) for points in grid.values())
        if cells > MAX_CELLS:
            raise ValueError(f"makes {cells:,} cells; {MAX_CELLS:,} is the maximum")
        return grid

    @field_validator("against")
    @classmethod
    def _one_of_the_rows(cls, against: str | None, info: ValidationInfo) -> str | None:
        """Rows are compared where one axis alone makes them."""
        grid, averaged = info.data.get("grid"), info.data.get("average_over")
        if against is None or grid is None or averaged is None:
            return against  # what is wrong with those is told by itself
        rows = {name: points for name, points in grid.items() if name and name not in averaged}
        if len(rows) != 1:
            raise _not_compared(f"needs one axis that is not averaged; the grid has {', '.join(rows) or 'none'}")
        (points,) = rows.values()
        if against not in points:
            near = nearest(against, points)
            guess = f"did you mean {near}?" if near else f"it has {', '.join(points)}"
            raise _not_compared(f"'{printable(against)}' is no point of the grid; {guess}")
        return against

    def beside(self, name: str) -> Path:
        """The path of a file that the sweep names: relative to its own folder."""
        return Path(name) if self._folder is None else self._folder / name

    def with_subjects(self, names: list[str]) -> SweepFile:
        """The same with other subjects: the axis `subject`, or the subject that stands at the top, is replaced.

        UsageError where subjects are set inside runs or by another axis, or where the one that rows are compared with
        is left out.
        """
        others = [point for name, points in self.grid.items() if name != "subject" for point in points.values()]
        inside = [run for part in (self, *others) for run in part.runs or []]
        if any(part.subject is not None for part in [*others, *inside]):
            raise UsageError(
                f"The sweep '{self.name}' names subjects inside its runs or on another axis; --subject cannot change "
                "them.",
                hint="change the file",
            )
        axis = {name: CellPart(subject=[name]) for name in names}
        if "subject" in self.grid:
            if self.against in self.grid["subject"] and self.against not in axis:
                raise UsageError(
                    f"--subject leaves out '{self.against}', with which the sweep '{self.name}' compares its rows.",
                    hint="name it, too, or change `against` in the file",
                )
            return self.model_copy(update={"grid": self.grid | {"subject": axis}})
        if self.subject is not None:
            # What is compared are the rows of one axis, which the subjects are not.
            missing = ["subject"] if self.against and "subject" not in self.average_over else []
            return self.model_copy(
                update={"grid": {"subject": axis, **self.grid}, "average_over": [*self.average_over, *missing]}
            )
        raise UsageError(
            f"The sweep '{self.name}' names no subject that --subject could replace.",
            hint="write `subject: NAME` into the file",
        )

    def with_settings(self, settings: Mapping[str, Any]) -> SweepFile:
        """The same with settings that win over the file's. UsageError for one in which its cells or runs differ."""
        points = [point for axis in self.grid.values() for point in axis.values()]
        stages = [stage for part in (self, *points) for stage in part.runs or []]
        for what, parts in (("grid", points), ("`runs`", stages)):
            for key in settings:
                if any(key in part.settings for part in parts):
                    raise UsageError(
                        f"--set {key}: the {what} of the sweep '{self.name}' sets it.", hint="change the file"
                    )
        last = {"": {"": CellPart(settings=dict(settings))}}
        return self.model_copy(update={"grid": self.grid | last}) if settings else self


def shipped_sweeps() -> list[str]:
    """Return the names of the sweeps that come with the program, sorted."""
    return sorted(path.stem for path in (shipped_folder() / "sweeps").glob("*.yaml"))


def load_sweep(name_or_path: str) -> SweepFile:
    """Return a shipped sweep by name, or one from a YAML file.

    Raises UsageError for a name that is not shipped, one ConfigError with every fault of the file's form.
    """
    return read_sweep(shipped_or_own_file(name_or_path, "sweep", shipped_folder() / "sweeps"))


def read_sweep(path: Path) -> SweepFile:
    """Return the sweep in a file. Raises one ConfigError with every fault: the place and the value found."""
    sweep = parse_sweep(read_yaml(path), str(path))
    sweep._folder = path.parent
    return sweep


def parse_sweep(found: Mapping[str, Any], where: str) -> SweepFile:
    """Return the sweep that a mapping says; `where` is named in the ConfigError with every fault."""
    axes = found.get("grid") if isinstance(found.get("grid"), Mapping) else ()
    try:
        return SweepFile.model_validate(found, context=axes)
    except ValidationError as error:
        lines = list(dict.fromkeys(_fault_of(fault) for fault in error.errors(include_url=False)))
        many = f"{len(lines)} faults" if len(lines) > 1 else "a fault"
        raise ConfigError(f"The sweep {where} has {many}:\n" + "\n".join(f"  {one}" for one in lines)) from error


def shown(value: Any) -> str:
    """A value of an axis as a label, as YAML has it: 1e-6, true, null, dog + cat."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " + ".join(shown(one) for one in value)
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def _fault_of(fault: Any) -> str:
    """One fault in words: the keys that lead to it, and what is wrong there."""
    path = [part for part in fault["loc"] if part not in ("$", "[key]")]
    if path[0] == "grid" and path[1:2] == path[3:4]:
        path = [*path[:2], *path[4:]]  # a value of the axis `name` is set as {name: value}
    place = [f"run {part + 1}" if isinstance(part, int) else printable(part) for part in path]
    text = fault["msg"]
    if fault["type"] != NOT_COMPARED:
        text = fault_text(fault["type"], text, fault.get("input"))
    if fault["type"] == "extra_forbidden":
        kind = (
            SweepImages
            if "pictures" in path
            else SweepFile
            if len(path) == 1
            else StagePart
            if "runs" in path
            else CellPart
        )
        fields = [field.alias or name for name, field in kind.model_fields.items()]
        near = nearest_key(str(path[-1]), [*fields, *known_keys()] if kind is not SweepImages else fields)
        text += f"; did you mean {near}?" if near else ""
    return f"{', '.join(place)}: {text}"
