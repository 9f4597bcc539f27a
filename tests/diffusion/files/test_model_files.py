"""Model files from strangers: what is sound is read, everything else is refused by name and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dbcli.diffusion.files.model_files import open_weights, read_json
from dbcli.errors import BaseMissing, UnsafeFile


def raw_safetensors(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    tensors = {
        "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
        "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "count": torch.tensor([7]),
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, str(tmp_path / "m.safetensors"), metadata={"said": "yes"})
    weights = open_weights(tmp_path / "m.safetensors")
    assert weights.metadata == {"said": "yes"}
    for name, tensor in tensors.items():
        assert weights.shape(name) == tuple(tensor.shape)
        assert weights.dtype(name) == tensor.dtype
        assert torch.equal(weights.read(name), tensor)


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"{not json", b"", "invalid JSON"),
        ([1], b"", "invalid type: sequence"),
        (b'{"a":' * 5000, b"", "recursion limit"),
        ({"__metadata__": {"a": 1}}, b"", "expected a string"),
        ({"a": entry([2], 0, 8, "F99")}, b"\0" * 8, "unknown variant `F99`"),
        ({"a": entry([2], 0, 16, "C64")}, b"\0" * 16, "unknown type 'C64'"),
        ({"a": entry([2], 0, 4)}, b"\0" * 4, "invalid shape"),
        ({"a": entry([2**40], 0, 8)}, b"\0" * 8, "invalid shape"),
        ({"a": entry([2**62, 2**62], 0, 8)}, b"\0" * 8, "overflow"),
        ({"a": entry([-2], 0, 8)}, b"\0" * 8, "invalid value: integer `-2`"),
        ({"a": entry([True], 0, 4)}, b"\0" * 4, "invalid type: boolean"),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"\0" * 4, "invalid offset for tensor `b`"),
        ({"a": entry([1], 4, 8)}, b"\0" * 8, "invalid offset for tensor `a`"),
        ({"a": entry([1], 0, 4)}, b"\0" * 5, "not fully covered"),
        ({"a": entry([2], 0, 8)}, b"\0" * 4, "not fully covered"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', b"\0" * 4, "missing field"),
        ({"a": {"dtype": "F32"}}, b"", "missing field"),
        ({"a": 3}, b"", "invalid type: integer `3`"),
    ],
)
def test_a_header_that_does_not_hold_is_refused(tmp_path: Path, header: object, data: bytes, reason: str) -> None:
    path = raw_safetensors(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(UnsafeFile, match=reason) as caught:
        open_weights(path)
    assert "bad.safetensors" in caught.value.message


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry([1] * 9, 0, 4)},
        {"a": entry([1], 0, 4) | {"said": 1}},
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ],
    ids=["nine dimensions", "one key too many", "a doubled name"],
)
def test_what_the_library_lets_pass_is_one_plain_tensor(tmp_path: Path, header: object) -> None:
    weights = open_weights(raw_safetensors(tmp_path / "odd.safetensors", header, struct.pack("<f", 1.5)))
    assert weights.names() == ["a"]
    assert weights.read("a").flatten().tolist() == [1.5]


def test_a_header_that_claims_more_than_the_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(UnsafeFile, match="header too large"):
        open_weights(path)


def test_every_cut_of_a_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(5), "b": torch.ones(3)}, str(tmp_path / "whole.safetensors"))
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(UnsafeFile):
            open_weights(tmp_path / "cut.safetensors")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_header_byte_is_refused_or_read_but_never_a_crash(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("flip")
    save_file({"a": torch.ones(2, 2)}, str(folder / "m.safetensors"))
    raw = bytearray((folder / "m.safetensors").read_bytes())
    position = data.draw(st.integers(0, len(raw) - 17))
    raw[position] ^= data.draw(st.integers(1, 255))
    (folder / "m.safetensors").write_bytes(raw)
    try:
        weights = open_weights(folder / "m.safetensors")
        tensors = [weights.read(name) for name in weights.names()]
    except UnsafeFile:
        return
    assert all(tensor.numel() * tensor.element_size() <= len(raw) for tensor in tensors)


def test_a_file_that_became_shorter_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(5)}, str(path))
    weights = open_weights(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UnsafeFile, match="not fully covered"):
        weights.read("a")


def test_a_header_is_read_without_torch(tmp_path: Path) -> None:
    save_file({"a": torch.ones(5)}, str(tmp_path / "m.safetensors"))
    code = (
        "import sys; from pathlib import Path; from dbcli.diffusion.files.model_files import open_weights;"
        "print(open_weights(Path(sys.argv[1])).shape('a'), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(5,) False\n"


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BaseMissing, match="no model file"):
        open_weights(tmp_path / "absent.safetensors")


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


def test_a_pickle_under_a_safetensors_name_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    with pytest.raises(UnsafeFile, match="pickle under the name"):
        open_weights(tmp_path / "m.safetensors")


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


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(UnsafeFile, match="zip archive"):
        open_weights(tmp_path / "m.ckpt")


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


def test_json_of_a_stranger(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(UnsafeFile, match="not a table"):
        read_json(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{" * 100_000)
    with pytest.raises(UnsafeFile, match="not JSON"):
        read_json(tmp_path / "c.json")
