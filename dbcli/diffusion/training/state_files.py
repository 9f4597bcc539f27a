"""A training state as safetensors and JSON in a folder, without pickle. Who commits the folder is not our concern."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from dbcli.diffusion.files.writing import write_tensor_file
from dbcli.diffusion.training.trainer import TrainingState

TENSOR_FILES = {"weights": "weights.safetensors", "optimiser": "optimiser.safetensors", "ema": "ema.safetensors"}
NUMBERS_FILE = "state.json"


def write_state(folder: Path, state: TrainingState) -> None:
    """Writes a state into an existing empty folder. Raises OSError where the disk is full."""
    for part, name in TENSOR_FILES.items():
        tensors = getattr(state, part)
        if tensors:
            write_tensor_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    numbers = {"schema": 1, "step": state.step, "scaler": state.scaler, "rate_scale": state.rate_scale}
    (folder / NUMBERS_FILE).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> TrainingState:
    """Reads a state that write_state wrote; the caller has checked the folder's hashes."""
    numbers = json.loads((folder / NUMBERS_FILE).read_text(encoding="utf-8"))
    tensors = {
        part: load_file(folder / name) if (folder / name).exists() else {} for part, name in TENSOR_FILES.items()
    }
    return TrainingState(
        step=numbers["step"], scaler=numbers["scaler"], rate_scale=numbers.get("rate_scale", 1.0), **tensors
    )
