"""What a base predicted for a set of class images, kept beside them: a folder a draw, each with its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbcli.project.files.atomic import json_text, remove_leftovers, sha256_of
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import Waiting, hold
from dbcli.project.files.manifests import first_fault, write_whole

FILE = "predictions.safetensors"
# Of how noise, levels and latents follow from a seed: another way is another store.
_VERSION = 1


@dataclass(frozen=True)
class TeacherStore:
    """The predictions of one base for one list of class images under one prompt, at one size and seed."""

    layout: Layout
    set_key: str
    key: str

    @classmethod
    def of(
        cls,
        layout: Layout,
        set_key: str,
        images: Sequence[Path],
        *,
        base_hash: str,
        prompt: str,
        size: tuple[int, int],
        seed: int,
        precision: str = "fp32",
    ) -> TeacherStore:
        """Return the store of these class images in this order; its name is a hash over all of it.

        `size` is their width and height in px as they are shown.
        """
        facts = {
            "version": _VERSION,
            "base": base_hash,
            "prompt": prompt,
            "images": [sha256_of(path) for path in images],
            # A square was named by its side when there was nothing else.
            "size": size[0] if size[0] == size[1] else list(size),
            "seed": seed,
            # Not named while there was but one.
            **({} if precision == "fp32" else {"precision": precision}),
        }
        return cls(layout, set_key, hashlib.sha256(json_text(facts).encode("utf-8")).hexdigest()[:12])

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        return self.layout.teacher_dir(self.set_key, self.key)

    def file(self, number: int) -> Path:
        """Return the file of one draw, whether it is there or not."""
        return self.folder / f"draw-{number:04d}" / FILE

    def missing(self, draws: int) -> list[int]:
        """Return the draws below `draws` that are not there, or not as they were written."""
        return [number for number in range(draws) if first_fault(self.file(number).parent) is not None]

    def fill(
        self, draws: int, write: Callable[[int, Path], None], *, needed_bytes: int, waiting: Waiting | None = None
    ) -> None:
        """Have `write` make the file of every missing draw; each is whole and named, or not there.

        Raises LockHeld while another process draws into the set, or waits for it; DiskFull before a draw of
        `needed_bytes` that the disk has no room for. Draws made before an interruption stay.
        """
        lock = self.layout.class_image_set_lock(self.set_key)
        with hold(lock, f"the class images {self.set_key}", waiting=waiting):
            self.folder.mkdir(exist_ok=True)
            remove_leftovers(self.folder)
            for number in self.missing(draws):
                write_whole(
                    self.file(number).parent,
                    lambda folder, number=number: write(number, folder / FILE),  # type: ignore[misc]
                    needed_bytes=needed_bytes,
                )
