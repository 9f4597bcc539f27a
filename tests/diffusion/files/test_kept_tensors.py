"""Tensors that were kept come back bit for bit, or not at all."""

from __future__ import annotations

from pathlib import Path

import torch

from dbcli.diffusion.files.kept_tensors import keep_tensors, kept_tensors


def test_kept_tensors_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    kept = {"one": torch.randn(2, 4), "half": torch.randn(3).bfloat16(), "wide": torch.randn(5, dtype=torch.float64)}
    file = tmp_path / "cache" / "one.safetensors"
    assert kept_tensors(file, ["one"]) is None
    keep_tensors(file, kept)
    found = kept_tensors(file, list(kept))
    assert found is not None
    for one, other in zip(found, kept.values(), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    assert kept_tensors(file, ["one", "none such"]) is None
    file.write_bytes(file.read_bytes()[:40])
    assert kept_tensors(file, ["one"]) is None


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    keep_tensors(tmp_path / "file" / "below.safetensors", {"one": torch.ones(1)})
