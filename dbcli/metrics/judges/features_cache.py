"""Features of images, computed once: kept by the file's sha256 and the encoder's key."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load, save

from dbcli.errors import DiskFull, Interrupted, PhotoError
from dbcli.metrics.judges.files import sha256_of
from dbcli.metrics.judges.judge import Judge
from dbcli.metrics.judges.masking import ClassMask
from dbcli.metrics.judges.preprocessing import as_rgb

# Pillow knows some fifty formats, a few of which start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass
class FeatureStore:
    """Features of files for any encoder; `folder` None keeps them for this process only.

    `hits` and `misses` count what was found and what had to be encoded. `should_stop` is asked between batches.
    """

    folder: Path | None = None
    batch_size: int = 32
    hits: int = 0
    misses: int = 0
    should_stop: Callable[[], bool] = lambda: False
    _known: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    _hashes: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    def features(
        self,
        paths: Sequence[Path],
        encoders: Sequence[Judge],
        *,
        mask: ClassMask | None = None,
        noun: str = "",
    ) -> list[torch.Tensor]:
        """Features of the files under each encoder: a list of float32 [N, D], rows in the order of `paths`.

        A file is decoded once for all encoders and encoded once for all its copies. Raises PhotoError for a
        file that cannot be read as an image, Interrupted where `should_stop` says so; features found stay.
        """
        digests = [self._digest(path) for path in paths]
        suffix = f"-{mask.key}-{noun}" if mask else ""
        keys = [encoder.key + suffix for encoder in encoders]
        unknown: set[str] = set()
        for digest in digests:
            if all(self._find(key, digest) for key in keys):
                self.hits += 1
            else:
                unknown.add(digest)
        self.misses += len(unknown)
        self._encode(dict(zip(digests, paths, strict=True)), unknown, encoders, keys, mask, noun)
        return [_stack([self._known[key, digest] for digest in digests]) for key in keys]

    def _encode(
        self,
        files: dict[str, Path],
        unknown: set[str],
        encoders: Sequence[Judge],
        keys: Sequence[str],
        mask: ClassMask | None,
        noun: str,
    ) -> None:
        digests = list(files)
        batches = [digests[start : start + self.batch_size] for start in range(0, len(digests), self.batch_size)]
        # Batches are of all files and encoded whole: the last bits of a feature depend on the size of its batch, and
        # an evaluation that was stopped half way must end with the numbers of one that was not.
        batches = [batch for batch in batches if unknown.intersection(batch)]
        # Decoding releases the interpreter's lock, so the next batch is read while this one is encoded.
        # Features are written while the next batch is encoded; a fault of the disk is told a batch later.
        writing: list[Future[None]] = []
        with ThreadPoolExecutor(max_workers=2) as readers, ThreadPoolExecutor(max_workers=1) as writer:
            loading = [readers.submit(_open_all, [files[digest] for digest in batch]) for batch in batches[:2]]
            for number, batch in enumerate(batches):
                if self.should_stop():
                    raise Interrupted("Stopped while scoring; what was scored is kept.")
                images = loading[number].result()
                if number + 2 < len(batches):
                    following = [files[digest] for digest in batches[number + 2]]
                    loading.append(readers.submit(_open_all, following))
                images = mask(images, noun) if mask else images
                written, writing = writing, []
                for encoder, key in zip(encoders, keys, strict=True):
                    missing = [index for index, digest in enumerate(batch) if (key, digest) not in self._known]
                    if not missing:
                        continue
                    rows = encoder.encode_images(images, self.batch_size)
                    for index in missing:
                        self._known[key, batch[index]] = rows[index].clone()
                        writing.append(writer.submit(self._write, key, batch[index], rows[index]))
                for one in written:
                    one.result()
                loading[number] = readers.submit(list)  # lets go of the images
        for one in writing:
            one.result()

    def _digest(self, path: Path) -> str:
        try:
            state = path.stat()
            place = (path, state.st_size, state.st_mtime_ns)
            if place not in self._hashes:
                self._hashes[place] = sha256_of(path)
            return self._hashes[place]
        except OSError as error:
            raise PhotoError(f"{path} cannot be read: {error.strerror}.") from error

    def _find(self, key: str, digest: str) -> bool:
        if (key, digest) in self._known:
            return True
        path = self._path(key, digest)
        if path is None or not path.is_file():
            return False
        try:
            self._known[key, digest] = load(path.read_bytes())["features"].float()
        except Exception:  # a cut-off or foreign file is as good as none: it is made again
            return False
        return True

    def _write(self, key: str, digest: str, row: torch.Tensor) -> None:
        path = self._path(key, digest)
        if path is None:
            return
        data = save({"features": row.contiguous()})
        try:
            _replace(path, data)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            free = shutil.disk_usage(self.folder.parent if self.folder else ".").free
            raise DiskFull(
                f"The disk is full: {path} needs {len(data):,} bytes, {free:,} bytes are free.",
                hint="free some space, then run the same command again",
            ) from error

    def _path(self, key: str, digest: str) -> Path | None:
        if self.folder is None:
            return None
        safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in key)
        return self.folder / safe / f"{digest}.safetensors"


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".features-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _open_all(paths: Sequence[Path]) -> list[Image.Image]:
    return [open_image(path) for path in paths]


def open_image(path: Path) -> Image.Image:
    """A file as an RGB image. Raises PhotoError naming the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return as_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(f"{path} cannot be read as an image: {error}") from error


def _stack(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, 0)
