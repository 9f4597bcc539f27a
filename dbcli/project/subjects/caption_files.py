"""The caption in a text file beside a photo: `dog.txt` or `dog.caption` for `dog.jpg`, in any case of the ending."""

from __future__ import annotations

import codecs
from pathlib import Path

from dbcli.project.files.names import without_control_characters

# The first of these that lies beside a photo counts.
CAPTION_SUFFIXES = (".txt", ".caption")
MAX_CAPTION = 2_000
# UTF-32's mark begins with UTF-16's, so it has to be looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(raw: bytes) -> str:
    """Return text in UTF-8, with a mark or without, or in UTF-16 or UTF-32 with one.

    Raises ValueError for anything else; UTF-16 without a mark is told by its zeros.
    """
    encoding = next((encoding for mark, encoding in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError("not text in UTF-8, or in UTF-16 with a byte order mark") from error
    if "\0" in text:
        raise ValueError("not text in UTF-8, or in UTF-16 with a byte order mark")
    return text


def read_caption(path: Path) -> str | None:
    """Return the caption in a file, on one line, None for an empty one. Raises ValueError with what is wrong."""
    # Four bytes are the most that a character takes, and so is a mark.
    with path.open("rb") as file:
        raw = file.read(4 * MAX_CAPTION + 5)
    too_long = f"longer than {MAX_CAPTION:,} characters"
    if len(raw) > 4 * MAX_CAPTION + 4:
        raise ValueError(too_long)
    text = without_control_characters(decoded(raw))
    if len(text) > MAX_CAPTION:
        raise ValueError(too_long)
    return text or None


class CaptionFiles:
    """Finds the caption file beside a photo; each folder is listed once, however many photos it holds."""

    def __init__(self) -> None:
        self._of_folder: dict[Path, dict[str, Path]] = {}

    def beside(self, photo: Path) -> Path | None:
        """The caption file of a photo, None where there is none."""
        if photo.parent not in self._of_folder:
            self._of_folder[photo.parent] = self._listed(photo.parent)
        return self._of_folder[photo.parent].get(photo.stem)

    @staticmethod
    def _listed(folder: Path) -> dict[str, Path]:
        try:
            files = [one for one in folder.iterdir() if one.suffix.lower() in CAPTION_SUFFIXES and one.is_file()]
        except OSError:
            return {}
        # .txt before .caption, and dog.txt before dog.TXT where a disk can hold both: what is last stays.
        rank = [(CAPTION_SUFFIXES.index(one.suffix.lower()), one.suffix not in CAPTION_SUFFIXES, one) for one in files]
        return {one.stem: one for _, _, one in sorted(rank, reverse=True)}
