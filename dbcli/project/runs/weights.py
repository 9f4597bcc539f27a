"""The weights a run ended with, held against the manifest they were written with."""

from __future__ import annotations

from pathlib import Path

from dbcli.errors import RunMissing, UnsafeFile
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import first_fault
from dbcli.project.runs.run_store import RunRecord

# The adapter of a LoRA run, in the folder of its weights.
LORA_FILE = "pytorch_lora_weights.safetensors"


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
            hint="put the file back from a copy, or train that run again",
        )
    return folder
