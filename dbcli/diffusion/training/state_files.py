"""A training state and a run's result as files, without pickle, and the model as it would be if training ended now.

Who commits the folders is not this module's concern.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

from dbcli.diffusion.adapters.attach import Trainable
from dbcli.diffusion.files.writing import write_tensor_file
from dbcli.diffusion.precision import autocast
from dbcli.diffusion.training.optimiser_state import averages_itself
from dbcli.diffusion.training.trainer import Trainer, TrainingState
from dbcli.errors import UnsafeFile

TENSOR_FILES = {"weights": "weights.safetensors", "optimiser": "optimiser.safetensors", "ema": "ema.safetensors"}
NUMBERS_FILE = "state.json"
WEIGHTS_FILE = TENSOR_FILES["weights"]


def write_state(folder: Path, state: TrainingState) -> None:
    """Writes a state into an existing empty folder. Raises OSError where the disk is full."""
    for part, name in TENSOR_FILES.items():
        tensors = getattr(state, part)
        if tensors:
            write_tensor_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    numbers = {"schema": 1, "step": state.step, "scaler": state.scaler, "rate_scale": state.rate_scale}
    numbers |= {"seen": state.seen} if state.seen else {}
    (folder / NUMBERS_FILE).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> TrainingState:
    """Reads a state that write_state wrote; the caller has checked the folder's hashes."""
    numbers = json.loads((folder / NUMBERS_FILE).read_text(encoding="utf-8"))
    tensors = {
        part: load_file(folder / name) if (folder / name).exists() else {} for part, name in TENSOR_FILES.items()
    }
    return TrainingState(
        step=numbers["step"],
        scaler=numbers["scaler"],
        rate_scale=numbers.get("rate_scale", 1.0),
        seen=numbers.get("seen", {}),
        **tensors,
    )


@contextmanager
def as_result(trainer: Trainer) -> Iterator[None]:
    """The model as `with_averages` has it, in the precision of training steps (`train.precision`).

    What is generated here is for comparison alone.
    """
    with with_averages(trainer), autocast(trainer.loop.precision, trainer.device):
        yield


@contextmanager
def with_averages(trainer: Trainer) -> Iterator[None]:
    """The model with averaged weights, where there are any, and out of training mode; afterwards all is as before."""
    keeps = trainer.averages or averages_itself(trainer.optimiser)
    before = {name: one.detach().clone() for name, one in trainer.trainable.tensors.items() if keeps}
    try:
        for module in trainer.trainable.modules:
            module.eval()
        trainer.use_averages()
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                trainer.trainable.tensors[name].copy_(tensor)
        for module in trainer.trainable.modules:
            module.train()


def result_tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What the run's result would be made of now, float32 on the CPU by name: averages where there are any."""
    weights = {name: tensor.detach() for name, tensor in trainer.trainable.tensors.items()} | dict(trainer.averaged())
    everything = weights | trainer.trainable.constants
    return {name: weight.float().cpu().contiguous() for name, weight in everything.items()}


def write_result(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes such tensors into an existing folder. Raises OSError where the disk is full."""
    write_tensor_file(dict(tensors), folder / WEIGHTS_FILE)


def result_file_of_checkpoint(folder: Path) -> Path:
    """The file of a checkpoint that a result made of it would hold: averages where they were kept."""
    averages = folder / TENSOR_FILES["ema"]
    return averages if averages.exists() else folder / TENSOR_FILES["weights"]


def check_fit(trainable: Trainable, found: Mapping[str, torch.Tensor], file: Path, way_on: str) -> None:
    """Raises UnsafeFile, with `way_on` as its hint, for the weights of another run: of other layers, or other shapes.

    Such a file is whole, and its manifest says so: a folder that was copied to the wrong place.
    """
    wanted = trainable.tensors | trainable.constants
    if any(name not in found or found[name].shape != tensor.shape for name, tensor in wanted.items()):
        raise UnsafeFile(f"{file} is of another run: what it holds are not the layers that are trained here.", way_on)


def load_result(trainable: Trainable, file: Path) -> None:
    """Puts the tensors of a file into a model by name, bit for bit; the caller has checked the file's hash."""
    found = load_file(file)
    check_fit(trainable, found, file, "move its folder away, or choose another --checkpoint")
    with torch.no_grad():
        for name, tensor in (trainable.tensors | trainable.constants).items():
            tensor.copy_(found[name])
