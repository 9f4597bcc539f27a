"""The base that a file names, and the project that is proposed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import ProjectSettings, save_settings
from dbcli.workflows.sharing.named_base import for_another_base


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    save_settings(layout, ProjectSettings(base="sd-v1-5"))
    return layout


@pytest.mark.parametrize(
    ("metadata", "said", "base"),
    [
        ({"ss_sd_model_name": "sdxl", "ss_base_model_version": "sdxl_base_v1-0"}, "sdxl (sdxl_base_v1-0)", "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "stable-diffusion-xl-v1-base", "sdxl"),
        ({"modelspec.description": "Textual inversion on tiny: hta toy"}, "tiny", "tiny"),
        ({"ss_sd_model_name": "None", "ss_base_model_version": "sd_v2"}, "sd_v2", "BASE"),
        # The project has the usual base of that kind, which is not the one that the file is for.
        ({"ss_sd_model_name": "mine.ckpt", "ss_base_model_version": "sd_v1"}, "mine.ckpt (sd_v1)", "BASE"),
    ],
)
def test_a_file_names_its_base(layout: Layout, metadata: dict[str, str], said: str, base: str) -> None:
    error = for_another_base("It does not fit.", metadata, layout, "import-embedding", Path("my file.pt"))
    assert error.message == f"It does not fit. It says that it was made on {said}."
    assert error.hint == f"dreambooth init NEW --base {base}; dreambooth -C NEW import-embedding 'my file.pt'"
