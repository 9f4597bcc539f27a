"""What ends a command beside its own errors: the machine, a slip in the command line, a bug."""

import errno
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbcli.cli.corrections import corrected
from dbcli.hints import WITHOUT_COMPILING

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

# What torch says in a RuntimeError of no class of its own.
DEVICE_SIGNS = ("CUDA error", "CUDNN_STATUS", "cuDNN error", "CUBLAS_STATUS", "No CUDA GPUs are available")

# Where the classes of what torch's compiler raises are defined.
COMPILER_MODULES = ("torch._dynamo", "torch._inductor")

Fault = tuple[int, str, str | None]


def machine_fault(error: BaseException) -> Fault | None:
    """Exit 5 for what the machine could not do; None for anything else.

    Known by name and text, so that torch need not be imported to tell.
    """
    from dbcli.workflows.memory.errors import is_out_of_memory

    text, kind = str(error), type(error).__name__
    if is_out_of_memory(error):
        return 5, "Out of memory.", "free some memory; generate needs less with --batch-size 1"
    if any(one.__module__.startswith(COMPILER_MODULES) for one in type(error).__mro__):
        # What the C++ compiler itself found wrong stands in the midst of its command and its whole output.
        lines = [line.strip() for line in text.splitlines() if line.strip()] or [kind]
        reason = next((line for line in lines if "error: " in line), lines[0])[:200]
        return 5, f"Compiling failed: {reason.rstrip('.')}.", WITHOUT_COMPILING
    if kind == "AcceleratorError" or (isinstance(error, RuntimeError) and any(sign in text for sign in DEVICE_SIGNS)):
        reason = (text.splitlines() or [kind])[0][:200]
        return 5, f"The GPU failed: {reason}.", "dreambooth train --resume continues from the last checkpoint"
    if isinstance(error, OSError) and error.errno is not None:
        return _system_fault(error)
    return None


def _system_fault(error: OSError) -> Fault | None:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
    if error.errno in FULL:
        needs = f"{where} needs more space" if where else "a file needs more space"
        return 5, f"The disk is full: {needs}, {_free_bytes(where):,} bytes are free.", "free some, then run it again"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return 5, f"No permission to write or read {where or 'a file'}.", "check who owns the folder"
    if where:
        return 5, f"{where}: {error.strerror}.", "check the path, and that nothing else is changing the project"
    return None


def _free_bytes(path: str) -> int:
    folder = Path(path or ".").absolute()
    try:
        return shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.is_dir())).free
    except OSError:
        return 0


def usage_fault(error: BaseException, words: Sequence[str] = ()) -> Fault | None:
    """A slip in the command line, as the parser found it: its message, its exit code, and what was meant or helps."""
    speak: Any = getattr(error, "format_message", None)
    if speak is None:
        return None
    context: Any = getattr(error, "ctx", None)
    path, message = "dreambooth" if context is None else str(context.command_path), str(speak())
    hint = corrected(words, path, message) or f"{path} --help"
    return int(getattr(error, "exit_code", 2)), message, hint


def bug(error: BaseException) -> Fault:
    """Exit 1: the program's own fault. The traceback goes to a log, never to the person's screen."""
    from platformdirs import user_log_path

    text = "".join(traceback.format_exception(error))
    name = time.strftime(f"crash-%Y%m%d-%H%M%S-{os.getpid()}.log")
    hint = "no log could be written"
    for folder in (user_log_path("dreambooth", appauthor=False), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        hint = f"the details are in {folder / name}"
        break
    return 1, f"A fault of dreambooth itself: {type(error).__name__}: {error}", hint
