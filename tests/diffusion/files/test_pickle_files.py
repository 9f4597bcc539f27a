"""Pickled checkpoints from strangers: plain tensors are read, whatever else is in them runs nothing."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from dbcli.diffusion.files.model_files import open_weights
from dbcli.errors import UnsafeFile


def test_a_checkpoint_with_state_dict_is_read(tmp_path: Path) -> None:
    values = torch.arange(12.0).reshape(3, 4).t()  # not contiguous
    torch.save({"state_dict": {"w": values}, "global_step": 470000}, tmp_path / "m.ckpt")
    weights = open_weights(tmp_path / "m.ckpt")
    assert weights.names() == ["w"]
    assert torch.equal(weights.read("w"), values)
    assert weights.metadata["global_step"] == "470000"


def test_a_checkpoint_without_state_dict_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "m.bin")
    assert open_weights(tmp_path / "m.bin").shape("w") == (2,)


def lightning_checkpoint(path: Path) -> Path:
    """A checkpoint as Stable Diffusion 1's: a Lightning class is a key of its `callbacks`, with an instance beside."""
    import sys
    import types

    names = [
        "pytorch_lightning",
        "pytorch_lightning.callbacks",
        "pytorch_lightning.callbacks.model_checkpoint",
    ]
    modules = {name: types.ModuleType(name) for name in names}
    callback = type("ModelCheckpoint", (), {"__module__": names[-1]})
    modules[names[-1]].ModelCheckpoint = callback  # type: ignore[attr-defined]
    instance = callback()
    instance.monitor = "val/loss"  # type: ignore[attr-defined]
    kept = {name: sys.modules.get(name) for name in names}
    sys.modules.update(modules)
    try:
        content = {
            "callbacks": {callback: {"best": 1.0}},
            "object": instance,
            "state_dict": {"w": torch.ones(2)},
        }
        torch.save(content, path)
    finally:
        for name, module in kept.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    return path


def test_lightnings_model_checkpoint_is_read_without_lightning(tmp_path: Path) -> None:
    path = lightning_checkpoint(tmp_path / "sd-v1-4.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert torch.equal(open_weights(path).read("w"), torch.ones(2))


class Canary:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch {canary}"),
        (exec, "open({canary!r}, 'w')"),
        (eval, "open({canary!r}, 'w')"),
        (open, "{canary}", "w"),
        (os.mkdir, "{canary}"),
        (__import__, "subprocess"),
        (torch.load, "{canary}"),
        (torch.hub.load, "someone/something", "model"),
    ],
)
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, call: tuple) -> None:
    canary = tmp_path / "canary"
    function, *arguments = call
    arguments = [a.format(canary=str(canary)) if isinstance(a, str) else a for a in arguments]
    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Canary(function, *arguments)}, tmp_path / "m.ckpt")
    with pytest.raises(UnsafeFile, match="m.ckpt"):
        open_weights(tmp_path / "m.ckpt")
    assert not canary.exists()


def test_the_refusal_names_what_the_pickle_asked_for_and_gives_no_unsafe_advice(tmp_path: Path) -> None:
    torch.save({"x": Canary(os.system, "true")}, tmp_path / "m.ckpt")
    with pytest.raises(UnsafeFile, match="system") as caught:
        open_weights(tmp_path / "m.ckpt")
    assert "weights_only" not in caught.value.message


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "m.ckpt")
    with zipfile.ZipFile(tmp_path / "m.ckpt") as old, zipfile.ZipFile(tmp_path / "z.ckpt", "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeFile, match="compressed"):
        open_weights(tmp_path / "z.ckpt")


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "m.ckpt")
    whole = (tmp_path / "m.ckpt").read_bytes()
    for tenth in range(1, 10):
        (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) * tenth // 10])
        with pytest.raises(UnsafeFile):
            open_weights(tmp_path / "cut.ckpt")


def test_a_flipped_byte_in_an_archive_is_never_a_traceback(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(8)}}, tmp_path / "m.ckpt")
    whole = (tmp_path / "m.ckpt").read_bytes()
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 0x41
        (tmp_path / "flip.ckpt").write_bytes(changed)
        try:
            weights = open_weights(tmp_path / "flip.ckpt")
            [weights.read(name) for name in weights.names()]
        except UnsafeFile:
            continue


def test_a_small_file_that_claims_a_huge_tensor_is_refused(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(2**40)  # stride 0: one number on disk, four terabytes when copied
    torch.save({"state_dict": {"w": huge}}, tmp_path / "m.ckpt")
    with pytest.raises(UnsafeFile, match="more than it has"):
        open_weights(tmp_path / "m.ckpt")


def test_the_same_bytes_under_many_names_are_refused(tmp_path: Path) -> None:
    one = torch.zeros(10_000)
    torch.save({"state_dict": {f"w{number}": one for number in range(100)}}, tmp_path / "m.ckpt")
    with pytest.raises(UnsafeFile, match="more than it has"):
        open_weights(tmp_path / "m.ckpt")


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_shells_without_bytes_and_odd_kinds_are_no_weights(tmp_path: Path) -> None:
    odd = {
        "meta": torch.empty(10, device="meta"),
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "plain": torch.ones(2),
        7: torch.ones(1),
    }
    torch.save({"state_dict": odd, "epoch": 10**500, "note": "x" * 2000, "global_step": 3}, tmp_path / "m.ckpt")
    weights = open_weights(tmp_path / "m.ckpt")
    assert weights.names() == ["plain"]
    assert weights.metadata == {"global_step": "3"}
