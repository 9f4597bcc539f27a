"""What exported files say of themselves."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime

import pytest
from PIL import Image

from dbcli.diffusion.bases.single_file import shipped_configs
from dbcli.diffusion.families.family import Family
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.families.sdxl import SDXL
from dbcli.diffusion.families.z_image import Z_IMAGE
from dbcli.diffusion.formats.metadata import kohya_folders, kohya_metadata, modelspec_metadata

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "prediction_type", "addition", "name"),
    [
        ("sd-v1", "epsilon", None, "stable-diffusion-v1"),
        ("sd-v1", "epsilon", "lora", "stable-diffusion-v1/lora"),
        ("sd-v2", "epsilon", None, "stable-diffusion-v2-512"),
        ("sd-v2", "v_prediction", "lora", "stable-diffusion-v2-768-v/lora"),
        ("sd-v1", "epsilon", "textual-inversion", "stable-diffusion-v1/textual-inversion"),
    ],
)
def test_architectures_are_spelled_as_model_spec_lists_them(version, prediction_type, addition, name) -> None:
    how = {"title": "dog", "resolution_px": 512, "date": DATE, "addition": addition}
    base = SD.architecture(shipped_configs(version), prediction_type)
    table = modelspec_metadata(architecture=base, implementation="x", prediction_type=prediction_type, **how)
    assert table["modelspec.architecture"] == name


STABILITY = "https://github.com/Stability-AI/generative-models"


# As `determine_implementation` of kohya's sd-scripts has it, which knows nothing of LoRAs in diffusers' names.
@pytest.mark.parametrize(
    ("family", "target", "implementation"),
    [
        (SD, "checkpoint", STABILITY),
        (SDXL, "checkpoint", STABILITY),
        (SD, "embedding", STABILITY),
        (SDXL, "embedding", STABILITY),
        (SD, "kohya", "diffusers"),
        (SDXL, "kohya", STABILITY),
        (SDXL, "lora", "diffusers"),
        (Z_IMAGE, "kohya", "diffusers"),
    ],
)
def test_the_implementation_is_the_one_that_kohya_states(family: Family, target: str, implementation: str) -> None:
    assert family.implementation_of(target) == implementation


def test_model_spec_has_what_it_must_have() -> None:
    table = modelspec_metadata(
        architecture="stable-diffusion-v1",
        implementation="diffusers",
        prediction_type="epsilon",
        title="sks dog",
        resolution_px=512,
        date=DATE,
        addition="lora",
        trigger_phrase="a sks dog",
        thumbnail=Image.new("RGBA", (600, 300), "red"),
    )
    assert table["modelspec.sai_model_spec"] == "1.0.0"
    assert table["modelspec.resolution"] == "512x512"
    assert table["modelspec.implementation"] == "diffusers"
    assert table["modelspec.date"] == "2026-01-02T03:04:05+00:00"
    assert table["modelspec.trigger_phrase"] == "a sks dog"
    assert "modelspec.author" not in table
    kind, _, data = table["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (256, 256)
    assert all(isinstance(value, str) for value in table.values())


def test_kohyas_table_is_text_and_names_the_trigger() -> None:
    table = kohya_metadata(
        {
            "network_dim": 4,
            "network_alpha": 8,
            **SD.kohya_base(shipped_configs("sd-v2"), "v_prediction"),
            "text_encoder_lr": None,
            **kohya_folders({"sks dog": 5, "mwf wolf": 3}),
        }
    )
    assert (table["ss_network_dim"], table["ss_network_alpha"]) == ("4", "8")
    assert (table["ss_base_model_version"], table["ss_v2"]) == ("sd_v2_v", "True")
    assert json.loads(table["ss_tag_frequency"]) == {"1_sks dog": {"sks dog": 5}, "1_mwf wolf": {"mwf wolf": 3}}
    assert json.loads(table["ss_dataset_dirs"])["1_mwf wolf"] == {"n_repeats": 1, "img_count": 3}
    assert table["ss_text_encoder_lr"] == "None"
    assert all(isinstance(value, str) for value in table.values())


def test_kohya_knows_three_kinds_of_bases() -> None:
    assert SD.kohya_base(shipped_configs("sd-v1"), "epsilon") == {"base_model_version": "sd_v1", "v2": False}
    assert SD.kohya_base(shipped_configs("sd-v2"), "epsilon") == {"base_model_version": "sd_v2", "v2": True}
