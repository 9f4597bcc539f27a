"""Checkpoint folders of a run and the weights it ended with: complete ones, told by a manifest written last."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from dbcli.errors import RunMissing, UnsafeFile
from dbcli.project.files.atomic import remove_folder, remove_leftovers
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import MANIFEST_NAME, first_fault, write_whole
from dbcli.project.runs.run_store import RunRecord

FOLDER_PATTERN = re.compile(r"step-(\d{6,9})")
# The adapter of a LoRA run, in the folder of its weights.
LORA_FILE = "pytorch_lora_weights.safetensors"


def save_checkpoint(
    layout: Layout,
    run: str,
    step: int,
    write: Callable[[Path], None],
    *,
    keep: int,
    keep_first: bool = False,
    needed_bytes: int = 0,
) -> Path:
    """Lets `write` fill a hidden folder, then makes it the run's checkpoint of `step`; older ones go after it is there.

    Of those up to `step` the newest `keep` stay, and with `keep_first` the oldest of all.

    Raises DiskFull, with everything that was there before still there; before the first byte where the disk has
    not `needed_bytes` free.
    """
    folder = layout.checkpoints_dir(run)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    final = checkpoint_folder(layout, run, step)
    if is_complete(final):
        return final
    write_step(folder, step, write, needed_bytes=needed_bytes)
    # A run that went back to an earlier step passed the newer ones over as damaged: they are none to go on from.
    written = [one for one in checkpoints(layout, run) if step_of(one) <= step]
    for old in written[1 if keep_first else 0 : -keep]:
        remove_folder(old)
    return final


def write_step(folder: Path, step: int, write: Callable[[Path], None], *, needed_bytes: int) -> None:
    """Makes `folder`/step-NNNNNN of what `write` puts into it, as `write_whole` does."""
    write_whole(folder / f"step-{step:06d}", write, needed_bytes=needed_bytes, step=step)


def checkpoints(layout: Layout, run: str) -> list[Path]:
    """The run's folders that look like checkpoints, oldest first; whether they are whole is is_complete's matter."""
    folder = layout.checkpoints_dir(run)
    if not folder.is_dir():
        return []
    found = [
        (int(match.group(1)), path)
        for path in folder.iterdir()
        if (match := FOLDER_PATTERN.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
    ]
    return [path for _, path in sorted(found)]


def checkpoint_folder(layout: Layout, run: str, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return layout.checkpoints_dir(run) / f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The step of a checkpoint, from its folder's name."""
    return int(folder.name.removeprefix("step-"))


def checkpoint_steps(layout: Layout, run: str) -> list[int]:
    """The steps whose checkpoints a run still has, oldest first."""
    return [step_of(path) for path in checkpoints(layout, run)]


def newest_checkpoint(layout: Layout, run: str, on_damage: Callable[[str], None] = lambda fault: None) -> Path | None:
    """The newest complete checkpoint; torn and changed ones are passed over and told to `on_damage`."""
    for path in reversed(checkpoints(layout, run)):
        fault = checkpoint_fault(path)
        if fault is None:
            return path
        on_damage(fault)
    return None


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint's folder holds a manifest and every file it names, byte for byte, and its own step."""
    return checkpoint_fault(folder) is None


def checkpoint_fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file: `first_fault`, or another step than its folder's name says."""
    fault = first_fault(folder)
    if fault is not None:
        return fault
    step = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8")).get("step")
    return None if step in (None, step_of(folder)) else f"{folder} is the checkpoint of step {step}"


def checked_weights(layout: Layout, record: RunRecord) -> Path:
    """The folder of a run's weights, every file compared with the manifest they were written with.

    Raises RunMissing where the folder is gone, UnsafeFile naming the file that is damaged.
    """
    folder = layout.weights_dir(record.name)
    if not folder.is_dir():
        raise RunMissing(f"{layout.shown(folder)} does not exist.", hint=f"dreambooth runs show {record.name}")
    fault = first_fault(folder)
    if fault is not None:
        raise UnsafeFile(
            f"The weights of the run {record.name} are damaged: {fault}.",
            hint="restore the file from a copy, or train that run again",
        )
    return folder
