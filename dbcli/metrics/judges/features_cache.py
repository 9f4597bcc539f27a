"""Features of images, computed once: kept by the file's sha256 and the encoder's key."""

import errno
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load, save

from dbcli.errors import DiskFull, Interrupted, PhotoError
from dbcli.metrics.judges.files import sha256_of
from dbcli.metrics.judges.judge import ImageEncoder
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
        self, paths: Sequence[Path], encoders: Sequence[ImageEncoder], *, mask: ClassMask | None = None, noun: str = ""
    ) -> list[torch.Tensor]:
        """Features of the files under each encoder: a list of float32 [N, D], rows in the order of `paths`.

        A file is decoded once for all encoders and encoded once for all its copies. Raises PhotoError for a file that
        cannot be read as an image, Interrupted where `should_stop` says so; features found stay.
        """
        digests = [self._digest(path) for path in paths]
        files = dict(zip(digests, paths, strict=True))
        suffix = f"-{mask.key}-{noun}" if mask else ""
        by_key = {encoder.key + suffix: encoder for encoder in encoders}
        unknown = {digest for digest in files if not all(self._find(key, digest) for key in by_key)}
        self.hits += sum(digest not in unknown for digest in digests)
        self.misses += len(unknown)
        # Batches are of all files and encoded whole: the last bits of a feature depend on the size of its batch, and
        # an evaluation that was stopped half way must end with the numbers of one that was not.
        every = list(files)
        batches = [every[start : start + self.batch_size] for start in range(0, len(every), self.batch_size)]
        self._encode([batch for batch in batches if unknown.intersection(batch)], files, by_key, mask, noun)
        rows = [[self._known[encoder.key + suffix, digest] for digest in digests] for encoder in encoders]
        return [torch.stack(row) if row else torch.zeros(0, 0) for row in rows]

    def _encode(
        self,
        batches: Sequence[Sequence[str]],
        files: Mapping[str, Path],
        by_key: Mapping[str, ImageEncoder],
        mask: ClassMask | None,
        noun: str,
    ) -> None:
        def read(batch: Sequence[str]) -> list[Image.Image]:
            return [open_image(files[digest]) for digest in batch]

        # Decoding releases the interpreter's lock, so the next batch is read while this one is encoded. Features are
        # written while the next batch is encoded; a fault of the disk is raised a batch later.
        writing: list[Future[None]] = []
        with ThreadPoolExecutor(max_workers=2) as readers, ThreadPoolExecutor(max_workers=1) as writer:
            loading = deque(readers.submit(read, batch) for batch in batches[:2])
            for number, batch in enumerate(batches):
                if self.should_stop():
                    raise Interrupted("Stopped while scoring; what was scored is kept.")
                images = loading.popleft().result()
                if number + 2 < len(batches):
                    loading.append(readers.submit(read, batches[number + 2]))
                images = mask(images, noun) if mask else images
                written, writing = writing, []
                for key, encoder in by_key.items():
                    missing = [index for index, digest in enumerate(batch) if (key, digest) not in self._known]
                    rows = encoder.encode_images(images, self.batch_size) if missing else None
                    for index in missing:
                        assert rows is not None
                        self._known[key, batch[index]] = rows[index].clone()
                        writing.append(writer.submit(self._write, key, batch[index], rows[index]))
                for one in written:
                    one.result()
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


def open_image(path: Path) -> Image.Image:
    """A file as an RGB image. Raises PhotoError naming the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return as_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(f"{path} cannot be read as an image: {error}") from error
