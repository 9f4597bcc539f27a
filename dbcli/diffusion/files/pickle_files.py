"""Pickled checkpoints (`.ckpt`, `.bin`, `.pt`) from strangers, read without running what is in them.

They are zip archives around a pickle. The pickle goes through torch's restricted unpickler (`weights_only=True`); the
tensors stay memory-mapped until they are asked for, so their shapes can be checked before they take memory.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbcli.diffusion.files.weight_file import how_to_get_again
from dbcli.errors import UnsafeFile, UnsupportedFile

MAX_PICKLE_BYTES = 64 * 2**20


class Inert:
    """Stands in for the one class that old Stable Diffusion checkpoints name in their pickle; it does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class NamedParameters:
    """Stands in for torch's ParameterDict, in which the first textual inversions were saved."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.named: dict[str, torch.Tensor] = {}

    def __setstate__(self, state: object) -> None:
        parameters = state.get("_parameters") if isinstance(state, dict) else None
        self.named = dict(parameters) if isinstance(parameters, dict) else {}


STAND_INS: list[Any] = [
    (Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (Inert, "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"),
    (NamedParameters, "torch.nn.modules.container.ParameterDict"),
]


class PickleFile:
    """A torch zip checkpoint read without running code; tensors stay memory-mapped until `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_archive(path)
        content = _read_pickle(path)
        _check_numbered(path, content)
        nested = content.get("state_dict") if isinstance(content, dict) else None
        tensors = _named_vectors(content) or (nested if isinstance(nested, dict) else content)
        if not isinstance(tensors, dict):
            raise UnsafeFile(f"{path} contains no table of tensors.")
        self._tensors: dict[str, torch.Tensor] = {
            name: value for name, value in tensors.items() if isinstance(name, str) and _is_plain(value)
        }
        if not self._tensors:
            raise UnsafeFile(f"{path} contains no tensors.")
        _check_sizes(path, self._tensors)
        self.metadata = _plain_facts(content)

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str) -> torch.Tensor:
        """One tensor as stored, contiguous, in memory of its own."""
        return self._tensors[name].detach().clone(memory_format=torch.contiguous_format)


def _named_vectors(content: Any) -> dict[str, Any]:
    """The table of an embedding that AUTOMATIC1111 or the first trainers pickled, its names as in a LoRA's bundle."""
    found = content.get("string_to_param") if isinstance(content, dict) else None
    table = found.named if isinstance(found, NamedParameters) else found
    return {f"string_to_param.{name}": value for name, value in table.items()} if isinstance(table, dict) else {}


def _check_numbered(path: Path, content: Any) -> None:
    """Refuses by name what two early programs wrote: tensors that only a number tells apart."""
    if isinstance(content, list) and content and all(isinstance(one, torch.Tensor) for one in content):
        raise UnsupportedFile(
            f"{path} is a LoRA from the first trainers: a list of matrices that does not name their layers.",
            hint="look for it as .safetensors under kohya's or diffusers' names, or convert it with its own trainer",
        )
    if isinstance(content, dict) and any(isinstance(key, int) for key in content):
        raise UnsupportedFile(f"{path} is a hypernetwork, which changes a model in a way that no run can hold.")


def _is_plain(value: Any) -> bool:
    """Whether it is an ordinary tensor with bytes behind it: no sparse, quantised, complex or empty-shelled kind."""
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.device.type != "cpu":
        return False
    return value.layout == torch.strided and not value.is_quantized and not value.dtype.is_complex


def _check_archive(path: Path) -> None:
    """A torch archive is uncompressed, so what it can unfold to is bounded by its size on disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnsafeFile(f"{path} is a damaged archive.", hint=how_to_get_again(path)) from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise UnsafeFile(f"{path} is compressed or encrypted inside, which no torch checkpoint is.")
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES:
            raise UnsafeFile(f"{path} contains a pickle of {entry.file_size} bytes, more than {MAX_PICKLE_BYTES}.")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise UnsafeFile(f"{path} describes more bytes than it has.")


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a damaged file; none may reach a person
        raise UnsafeFile(
            f"{path} contains more than plain tensors, or is damaged; it was not opened ({_reason(error)}).",
            hint="Use the model as .safetensors.",
        ) from error


def _reason(error: Exception) -> str:
    """What the unpickler met: the middle of torch's message, without its advice to open the file unsafely."""
    paragraphs = [part.strip() for part in str(error).split("\n\n") if part.strip()]
    telling = [part for part in paragraphs if "weights_only" not in part and "torch.load" not in part]
    return telling[0].split("\n")[0][:160].rstrip(".") if telling else type(error).__name__


def _check_sizes(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """A pickle can show a few bytes as a huge tensor, or the same bytes under many names."""
    described = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if described > 2 * path.stat().st_size:
        raise UnsafeFile(f"{path} describes {described} bytes of tensors, more than it has.")


def _plain_facts(content: Any) -> dict[str, str]:
    """Numbers stored beside the weights, such as `global_step`, as text."""
    if not isinstance(content, dict):
        return {}
    return {key: str(value) for key, value in content.items() if isinstance(key, str) and _is_short(value)}


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) < 1000
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 1000)
