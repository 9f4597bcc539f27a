"""What the folders of an evaluation are called: after the suite, with an ending for each other way to look at it."""

import hashlib
import re

from dbcli.errors import UsageError
from dbcli.project.files.names import MOST_OF_NAME
from dbcli.project.runs.score_files import INTERFERENCE_SUITE

_MASKED, _WITH_IDENTIFIER = "-masked", "-with-identifier"
# Folders that other evaluations of the run write into.
_TAKEN = re.compile(rf"{INTERFERENCE_SUITE}(-with-.*)?|.*(-step-\d+|{_MASKED}|{_WITH_IDENTIFIER})", re.IGNORECASE)


def check_suite_name(name: str) -> None:
    """Raises UsageError for a suite whose scores would lie where those of another evaluation do."""
    if _TAKEN.fullmatch(name):
        raise UsageError(
            f"A suite cannot be named '{name}': its scores would lie where those of another evaluation do.",
            hint="rename the file, or the suite in it",
        )


def images_folder(suite: str, checkpoint: int | None) -> str:
    """Another checkpoint's images lie apart."""
    return suite if checkpoint is None else _with_ending(suite, f"-step-{checkpoint}")


def scores_folder(suite: str, checkpoint: int | None, *, masked: bool, with_identifier: bool) -> str:
    """So do the scores of another way to look at the same images."""
    step = "" if checkpoint is None else f"-step-{checkpoint}"
    return _with_ending(suite, step + (_MASKED if masked else "") + (_WITH_IDENTIFIER if with_identifier else ""))


def _with_ending(suite: str, ending: str) -> str:
    """The name of a folder; of a long name its beginning and what tells it from others that begin alike."""
    if len(suite) + len(ending) <= MOST_OF_NAME:
        return suite + ending
    digest = hashlib.sha256(suite.encode()).hexdigest()[:8]
    return f"{suite[: MOST_OF_NAME - len(ending) - len(digest) - 1]}-{digest}{ending}"
