"""Which known base another is trained like, told from its small files: a folder's, a file's, the hub's cache."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from dbcli.diffusion.formats.checkpoint import write_checkpoint
from dbcli.diffusion.formats.diffusers_folder import write_settings
from dbcli.errors import ConfigError
from dbcli.workflows.setup.base_facts import base_like
from dbcli.workflows.setup.effective_settings import check_method, default_profile
from dbcli.workflows.setup.suggested_profile import proposed_profile
from tests.diffusion import tiny_models, tiny_z_image


def written(place: Path, version: str) -> Path:
    if place.suffix:
        write_checkpoint(place, tiny_models.model(version))
    else:
        write_settings(place, tiny_models.model(version))
    return place


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_a_model_of_xl_takes_the_profiles_of_xl(name: str, tmp_path: Path) -> None:
    base = str(written(tmp_path / name, "sdxl"))
    assert base_like(base) == "sdxl"
    assert [default_profile(base, method) for method in ("full", "lora")] == ["sdxl-full", "sdxl-lora"]
    assert proposed_profile(base, has_gpu=True, memory_mib=80_000).profile == "sdxl-lora"


def test_a_folder_of_z_image_takes_its_one_profile(tmp_path: Path) -> None:
    base = str(tiny_z_image.write_folder(tmp_path / "model"))
    assert base_like(base) == "zimage"
    assert [default_profile(base, method) for method in (None, "lora", "full")] == ["zimage-lora"] * 3
    assert proposed_profile(base, has_gpu=False).profile == "zimage-lora"
    for method in ("full", "textual-inversion"):
        with pytest.raises(ConfigError, match="flow-matching"):
            check_method(base, method)
    check_method(base, "lora")


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_a_model_of_version_1_takes_those_of_version_1(name: str, tmp_path: Path) -> None:
    base = str(written(tmp_path / name, "sd-v1"))
    assert base_like(base) == base
    assert default_profile(base, "lora") == "lora"


def test_a_repository_in_the_hubs_cache_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert default_profile("someone/mine-xl", "lora") == "lora"
    written(tmp_path / "models--someone--mine-xl" / "snapshots" / ("0" * 40), "sdxl")
    assert default_profile("someone/mine-xl", "lora") == "sdxl-lora"


def test_a_base_that_was_exchanged_is_looked_at_again(tmp_path: Path) -> None:
    place = tmp_path / "model"
    written(place, "sd-v1")
    assert base_like(str(place)) == str(place)
    shutil.rmtree(place)
    written(place, "sdxl")
    assert base_like(str(place)) == "sdxl"


@pytest.mark.parametrize("content", [b"", b"not a model", (8).to_bytes(8, "little") + b'{"a": 1}'])
def test_what_is_no_model_is_like_no_other(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(content)
    assert base_like(str(file)) == str(file)
    assert base_like(str(tmp_path)) == str(tmp_path)
    assert base_like("sdxl") == "sdxl" and base_like(str(tmp_path / "nothing")) == str(tmp_path / "nothing")


def test_init_names_the_profiles_of_what_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dbcli.cli import app

    base = written(tmp_path / "model.safetensors", "sdxl")
    monkeypatch.setattr(sys, "argv", ["dreambooth", "init", str(tmp_path / "project"), "--base", str(base)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    assert "sdxl-full for full, sdxl-lora for lora" in capsys.readouterr().out
