"""Work beside the training itself: images and numbers to look at. Where it fails, the run goes on without it."""

import traceback
from collections.abc import Callable
from typing import TypeVar

from dbcli.errors import DreamboothError, Interrupted
from dbcli.workflows.memory.errors import give_back, is_out_of_memory
from dbcli.workflows.progress import Progress

T = TypeVar("T")


def attempted(what: str, progress: Progress, work: Callable[[], T]) -> T | None:
    """What the work returns; None, with a warning that names `what`, where it fails. Raises Interrupted alone."""
    try:
        return work()
    except Interrupted:
        raise
    except Exception as error:
        progress.warn(f"{what} failed; the run continues without it: {reason_of(error)}")
        # The frames of what failed still hold its tensors.
        traceback.clear_frames(error.__traceback__)
    give_back()
    return None


def reason_of(error: Exception) -> str:
    """An error in a line."""
    if isinstance(error, DreamboothError):
        return error.message
    if is_out_of_memory(error):
        return "out of memory"
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0][:300]}"
