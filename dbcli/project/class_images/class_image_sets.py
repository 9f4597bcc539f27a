"""Class images with their provenance, a folder a set, under `reg/<class>-<key>/`.

A set is named by what it was drawn from, so that one drawn by another base or prompt is never taken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dbcli.errors import DataError, DreamboothError, PhotoError
from dbcli.project.files.atomic import (
    append_line,
    commit_folder,
    json_text,
    remove_folder,
    remove_leftovers,
    sha256_of,
    temporary_folder,
    write_bytes,
)
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import Waiting, hold
from dbcli.project.files.names import names_in, slug
from dbcli.project.files.records import Record, load_record, read_json_lines
from dbcli.project.files.yaml_files import write_yaml
from dbcli.project.subjects.photos import Photo, list_files, walk_photos

SET_FILE = "set.yaml"
IMAGES_FILE = "images.jsonl"
_MAX_INDEX = 999_999


class ClassImageRecipe(BaseModel):
    """Everything that decides how the class images look; each image's seed comes from the set's `seed`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    base_hash: str = Field(min_length=1)
    prompt: str
    sampler: str
    eta: float
    steps: int
    guidance: float
    width: int
    height: int
    seed: int
    precision: str = "fp32"
    timesteps: str = "published"

    def key(self, class_noun: str) -> str:
        """Return the set's name: the class and 12 hex digits over every field, "dog-1a2b3c4d5e6f"."""
        # Sets made before there was a choice were made in fp32 on the published timesteps, and keep their names.
        defaults = {"precision": "fp32", "timesteps": "published"}
        fields = self.model_dump(exclude={name for name, value in defaults.items() if getattr(self, name) == value})
        canonical = json_text(dict(sorted(fields.items())))
        return _key(class_noun, hashlib.sha256(canonical.encode("utf-8")).hexdigest())


class _SetRecord(Record):
    key: str
    class_noun: str
    source: Literal["base", "folder"]
    recipe: ClassImageRecipe | None = None
    images: int | None = None


@dataclass(frozen=True)
class ClassImageSet:
    """One set of class images on disk. Only the holder of `lock()` adds images; anyone may read."""

    layout: Layout
    key: str
    class_noun: str
    recipe: ClassImageRecipe | None
    own_count: int | None = None
    _sound: dict[str, tuple[int, int, str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open_or_create(cls, layout: Layout, class_noun: str, recipe: ClassImageRecipe) -> ClassImageSet:
        """Return the set of a recipe, made empty if it is new.

        Raises DataError if the folder's `set.yaml` tells of another recipe: someone edited or moved it.
        """
        key = recipe.key(class_noun)
        folder = layout.class_image_set_dir(key)
        record = _SetRecord(key=key, class_noun=class_noun, source="base", recipe=recipe)
        if folder.is_dir() and (folder / SET_FILE).exists():
            found = _load(layout, key)
            if found.recipe != recipe:
                raise DataError(
                    f"{layout.shown(folder / SET_FILE)} does not match its folder's name.",
                    hint=f"delete {layout.shown(folder)}; it is generated again",
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write_yaml(folder / SET_FILE, record.to_plain())
        return cls(layout, key, class_noun, recipe)

    @classmethod
    def from_folder(
        cls, layout: Layout, class_noun: str, source: Path, *, waiting: Waiting | None = None
    ) -> ClassImageSet:
        """Return a set made of a person's own class photos, copied in once; the key is over their bytes.

        Raises PhotoError if the folder is not there or holds no usable photo, and LockHeld while another process
        copies into the project, or with `waiting` waits for it.
        """
        files = list_files([source])
        key = _key(class_noun, _hash_of_files(files))
        final = layout.class_image_set_dir(key)
        layout.class_images_dir.mkdir(parents=True, exist_ok=True)
        if not (final / SET_FILE).exists():
            with hold(layout.class_images_dir / ".lock", "the class images", wait_seconds=1.0, waiting=waiting):
                remove_leftovers(layout.class_images_dir)
                if not final.exists():
                    _copy_own(final, key, class_noun, source)
        return cls(layout, key, class_noun, None, own_count=_load(layout, key).images)

    @property
    def folder(self) -> Path:
        """Where the set lies."""
        return self.layout.class_image_set_dir(self.key)

    @contextlib.contextmanager
    def lock(self, waiting: Waiting | None = None) -> Iterator[None]:
        """Hold the set for writing, cleared of half-written files; LockHeld if another process has it, or wait."""
        with hold(self.layout.class_image_set_lock(self.key), f"the class images {self.key}", waiting=waiting):
            remove_leftovers(self.folder)
            yield

    def available(self, count: int) -> int:
        """Return how many images the set is to have: `count`, or all there are of a person's own photos."""
        return count if self.own_count is None else self.own_count

    def missing(self, count: int) -> list[int]:
        """Return the indices below `count` whose image is not there or not as recorded, in order.

        For a person's own photos it is always empty, as nothing can be drawn; see `images`.
        """
        if self.own_count is not None:
            return []
        recorded = self._recorded()
        return [index for index in range(count) if not self._is_sound(index, recorded.get(index))]

    def put(self, index: int, png_bytes: bytes) -> str:
        """Store one image under its index and return its hash; it counts once that is recorded."""
        if not 0 <= index <= _MAX_INDEX:
            raise ValueError(f"a class image's index is 0 to {_MAX_INDEX}, not {index}")
        write_bytes(self._path(index), png_bytes)
        return hashlib.sha256(png_bytes).hexdigest()

    def record(self, index: int, digest: str) -> None:
        """Record the hash of an image that was stored."""
        _record(self.folder, index, digest)

    def images(self, count: int) -> list[Path]:
        """Return the sound images among the first `count`, by index; of own photos all, whatever `count` is.

        Raises DataError if one of a person's own photos was changed in the set.
        """
        recorded, wanted = self._recorded(), self.available(count)
        sound = [index for index in range(wanted) if self._is_sound(index, recorded.get(index))]
        if self.own_count is not None and len(sound) < wanted:
            raise DataError(
                f"{wanted - len(sound)} of {wanted} images in {self.layout.shown(self.folder)} were changed.",
                hint="delete that folder; the photos are copied in again",
            )
        return [self._path(index) for index in sound]

    def line(self, count: int) -> str:
        """Return the line every run prints: "prior ON (100/100, reg/dog-1a2b3c4d5e6f)"."""
        wanted = self.available(count)
        own = ", own photos" if self.own_count is not None else ""
        return f"prior ON ({len(self.images(count))}/{wanted}, {self.layout.shown(self.folder)}{own})"

    def recorded_count(self) -> int:
        """Return how many images are recorded and there, without reading them."""
        return sum(1 for index in self._recorded() if self._path(index).is_file())

    def size_bytes(self) -> int:
        """Return the bytes the set takes on the disk, with what a teacher stored beside its images."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def _path(self, index: int) -> Path:
        return self.folder / _file_name(index)

    def _recorded(self) -> dict[int, str]:
        # A line cut short by a crash is left out: its image is generated again.
        found = [(line.get("index"), line.get("sha256")) for line in read_json_lines(self.folder / IMAGES_FILE)]
        return {index: sha for index, sha in found if isinstance(index, int) and isinstance(sha, str)}

    def _is_sound(self, index: int, expected: str | None) -> bool:
        path = self._path(index)
        if expected is None or path.is_symlink() or not path.is_file():
            return False
        status = path.stat()
        seen = self._sound.get(path.name)
        # Hashing a thousand images takes seconds: once is enough while the file is untouched.
        if seen is None or seen[:2] != (status.st_size, status.st_mtime_ns):
            seen = (status.st_size, status.st_mtime_ns, sha256_of(path))
            self._sound[path.name] = seen
        return seen[2] == expected


def open_class_image_set(layout: Layout, key: str) -> ClassImageSet:
    """Return a set that is there, by its key. Raises DataError if it is not, or its record is damaged."""
    record = _load(layout, key)
    return ClassImageSet(layout, key, record.class_noun, record.recipe, own_count=record.images)


def list_class_image_sets(layout: Layout) -> list[ClassImageSet]:
    """Return all sets whose record can be read, sorted by key."""
    sets = []
    for name in names_in(layout.class_images_dir):
        with contextlib.suppress(DreamboothError):
            sets.append(open_class_image_set(layout, name))
    return sets


def remove_class_image_sets(layout: Layout, keys: Sequence[str]) -> None:
    """Delete sets. Raises DataError if one is not there, before any goes; LockHeld while a process draws into one."""
    for key in keys:
        if not layout.class_image_set_dir(key).is_dir():
            raise DataError(f"There are no class images '{key}' here.", hint="dreambooth reg list")
    with contextlib.ExitStack() as held:
        for key in dict.fromkeys(keys):
            held.enter_context(hold(layout.class_image_set_lock(key), f"the class images {key}"))
        for key in dict.fromkeys(keys):
            remove_folder(layout.class_image_set_dir(key))


def _key(class_noun: str, digest: str) -> str:
    return f"{slug(class_noun, fallback='class')}-{digest[:12]}"


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def _load(layout: Layout, key: str) -> _SetRecord:
    path = layout.class_image_set_dir(key) / SET_FILE
    try:
        record = load_record(_SetRecord, path, f"record of the class images '{key}'", DataError)
    except FileNotFoundError as error:
        raise DataError(f"{layout.shown(path)} does not exist.") from error
    if record.source == "folder" and record.images is None:
        raise DataError(f"{layout.shown(path)} does not say how many images it has.")
    return record


def _record(folder: Path, index: int, digest: str) -> None:
    entry = {"index": index, "file": _file_name(index), "sha256": digest}
    append_line(folder / IMAGES_FILE, json_text(entry))


def _hash_of_files(files: list[Path]) -> str:
    hashes = sorted(sha256_of(path) for path in files if path.is_file() and not path.name.startswith("."))
    return hashlib.sha256("\n".join(["own photos", *hashes]).encode("ascii")).hexdigest()


def _copy_own(final: Path, key: str, class_noun: str, source: Path) -> None:
    with temporary_folder(final) as folder:
        count, reasons = 0, []
        for result in walk_photos([source]):
            if isinstance(result, Photo):
                write_bytes(folder / _file_name(count), result.png)
                _record(folder, count, result.sha256)
                count += 1
            elif not result.stray:
                reasons.append("  " + result.text)
        if not count:
            raise PhotoError("\n".join([f"{source} contains no photo of the class that can be used.", *reasons[:20]]))
        record = _SetRecord(key=key, class_noun=class_noun, source="folder", images=count)
        write_yaml(folder / SET_FILE, record.to_plain())
        commit_folder(folder, final)
