"""The base of full size is written in both forms; a LoRA for it has the layers that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file

from dbcli.diffusion.bases import single_file
from dbcli.diffusion.bases.base import load_base
from tests.diffusion import tiny_models


def test_both_forms_are_one_model_and_its_lora_has_every_layer(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_file, "shipped_configs", tiny_models.narrow_configs)
    script("full_size").write(tmp_path, "sdxl")
    folder, file = (load_base(str(tmp_path / name)) for name in ("folder", "file.safetensors"))
    assert folder.family.title == "Stable Diffusion XL" and folder.hash == file.hash
    files, layers = script("full_size_clients").write_loras(tmp_path)
    kohya = [name for name in load_file(files["kohya"]) if name.endswith(".alpha")]
    # 70 transformer blocks with two attentions of four layers; six a layer of text encoders of 12 and 32.
    assert len(kohya) == layers == 70 * 8 + 6 * 12 + 6 * 32
