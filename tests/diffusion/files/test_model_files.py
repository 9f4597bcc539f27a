"""Model files from strangers: what is sound is read, everything else is refused by name and runs nothing."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
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
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"\0" * 4, "invalid offset for tensor `[ab]`"),
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
    with pytest.raises(UnsafeFile, match="ends within"):
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


def test_a_pickle_under_a_safetensors_name_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    with pytest.raises(UnsafeFile, match="pickle with the name"):
        open_weights(tmp_path / "m.safetensors")


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(UnsafeFile, match="zip archive"):
        open_weights(tmp_path / "m.ckpt")


def test_json_of_a_stranger(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(UnsafeFile, match="not a table"):
        read_json(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("{" * 100_000)
    with pytest.raises(UnsafeFile, match="not JSON"):
        read_json(tmp_path / "c.json")
