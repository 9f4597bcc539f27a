"""What a Debian package says of the licence of each of its files, and which licences let a picture be learnt from.

The rule is that of the sprites: pictures in the public domain or under CC0, CC BY or a permissive licence are trained
on. Under the GPL and CC BY-SA it is open whether the weights would have to be shared alike, so these only measure.
"""

import fnmatch
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_FREE = re.compile(r"public[- ]domain|CC0(-\d\.\d)?|CC-BY-\d\.\d|MIT|Expat|BSD-\d-clause|Apache-2\.0", re.IGNORECASE)


@dataclass(frozen=True)
class Rights:
    """The licence of a file, by its short name, and whose it is."""

    licence: str
    author: str

    @property
    def free_to_train(self) -> bool:
        """Whether weights learnt from the file may be given away under the project's own licence."""
        return _FREE.fullmatch(self.licence) is not None


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line[:1].isspace():
            fields[name] = fields.get(name, "") + "\n" + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            fields[name] = value.strip()
    return fields


def read_copyright(text: str) -> list[tuple[str, Rights]]:
    """Return the patterns of a machine-readable debian/copyright (DEP 5) and their rights, in the file's order."""
    rights = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = _fields(paragraph)
        if "Files" in fields and "License" in fields:
            licence = fields["License"].splitlines()[0].strip()
            author = ", ".join(line.strip() for line in fields.get("Copyright", "").splitlines() if line.strip())
            rights += [(pattern, Rights(licence, author)) for pattern in fields["Files"].split()]
    return rights


def rights_of(path: str, rights: list[tuple[str, Rights]]) -> Rights | None:
    """Return the rights of a file of the source package, given without its ending; the last pattern that fits counts.

    Packages convert pictures when they are built, so that x.jpg of the licence is x.webp in the package.
    """
    found = None
    for pattern, right in rights:
        named = PurePosixPath(pattern)
        stem = pattern if named.name.endswith("*") else str(named.with_suffix(""))
        if fnmatch.fnmatchcase(path, stem):
            found = right
    return found
