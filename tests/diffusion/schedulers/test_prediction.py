"""What single files say of their prediction and of zero terminal SNR, in every spelling, and the person's last word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dbcli.diffusion.bases.base import load_base, parts_of, resolve_base
from dbcli.diffusion.formats.checkpoint import original_tensors
from dbcli.diffusion.schedulers.samplers import alphas_of
from dbcli.errors import UnsupportedFile
from tests.diffusion import tiny_models

MARK = torch.tensor([])


@pytest.fixture(scope="module")
def tensors() -> dict[str, dict[str, torch.Tensor]]:
    return {
        version: {name: tensor.contiguous() for name, tensor in original_tensors(tiny_models.model(version)).items()}
        for version in ("sd-v1", "sd-v2")
    }


def scheduler_of(path: Path, tensors, metadata=None, prediction_type: str | None = None) -> dict:
    save_file(tensors, str(path), metadata=metadata)
    return parts_of(resolve_base(str(path)), offline=True, prediction_type=prediction_type).configs["scheduler"]


@pytest.mark.parametrize("version", ["sd-v1", "sd-v2"])
@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("modelspec.prediction_type", "v", "v_prediction"),
        ("modelspec.prediction_type", "v_prediction", "v_prediction"),
        ("modelspec.prediction_type", "V-Prediction", "v_prediction"),
        ("modelspec.prediction_type", "epsilon", "epsilon"),
        ("modelspec.predict_key", "v", "v_prediction"),
        ("modelspec.predict_key", "epsilon", "epsilon"),
        ("prediction_type", "v_prediction", "v_prediction"),
        ("ss_v_parameterization", "True", "v_prediction"),
    ],
)
def test_metadata_is_heard_in_every_spelling(tmp_path: Path, tensors, version: str, key, value, found) -> None:
    told = scheduler_of(tmp_path / "m.safetensors", tensors[version], {key: value})
    assert told["prediction_type"] == found
    assert not told.get("rescale_betas_zero_snr")


@pytest.mark.parametrize("version", ["sd-v1", "sd-v2"])
@pytest.mark.parametrize(
    ("marks", "zero_snr"), [(("v_pred",), False), (("v_pred", "ztsnr"), True), (("ztsnr",), True)], ids=str
)
def test_marker_tensors_are_heard(
    tmp_path: Path, tensors, version: str, marks: tuple[str, ...], zero_snr: bool
) -> None:
    marked = tensors[version] | {mark: MARK.clone() for mark in marks}
    told = scheduler_of(tmp_path / "m.safetensors", marked)
    assert told["prediction_type"] == "v_prediction"
    assert bool(told.get("rescale_betas_zero_snr")) == zero_snr


def test_a_pickled_checkpoint_with_markers_is_heard_too(tmp_path: Path, tensors) -> None:
    torch.save({"state_dict": tensors["sd-v1"] | {"v_pred": MARK}}, tmp_path / "m.ckpt")
    parts = parts_of(resolve_base(str(tmp_path / "m.ckpt")), offline=True)
    assert parts.configs["scheduler"]["prediction_type"] == "v_prediction"
    assert any("predicts v" in note for note in parts.notes)


def test_a_file_that_says_nothing_predicts_epsilon_without_a_word(tmp_path: Path, tensors) -> None:
    save_file(tensors["sd-v1"], str(tmp_path / "m.safetensors"))
    parts = parts_of(resolve_base(str(tmp_path / "m.safetensors")), offline=True)
    assert (parts.configs["scheduler"]["prediction_type"], parts.notes) == ("epsilon", [])


def test_a_prediction_that_nobody_can_train_is_refused_unless_a_person_says_otherwise(tmp_path: Path, tensors) -> None:
    metadata = {"modelspec.prediction_type": "x0"}
    with pytest.raises(UnsupportedFile, match="x0") as caught:
        scheduler_of(tmp_path / "m.safetensors", tensors["sd-v1"], metadata)
    assert caught.value.exit_code == 6
    told = scheduler_of(tmp_path / "m.safetensors", tensors["sd-v1"], metadata, "epsilon")
    assert told["prediction_type"] == "epsilon"


def test_the_person_has_the_last_word_over_markers(tmp_path: Path, tensors) -> None:
    marked = tensors["sd-v1"] | {"v_pred": MARK.clone(), "ztsnr": MARK.clone()}
    told = scheduler_of(tmp_path / "m.safetensors", marked, None, "epsilon")
    assert (told["prediction_type"], bool(told.get("rescale_betas_zero_snr"))) == ("epsilon", False)
    told = scheduler_of(tmp_path / "m.safetensors", marked, None, "v_prediction")
    assert (told["prediction_type"], told["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_zero_terminal_snr_reaches_training_and_the_hash(tmp_path: Path, tensors) -> None:
    marked = tensors["sd-v1"] | {"v_pred": MARK.clone()}
    save_file(marked, str(tmp_path / "v.safetensors"))
    save_file(marked | {"ztsnr": MARK.clone()}, str(tmp_path / "z.safetensors"))
    plain, zero = (load_base(str(tmp_path / f"{name}.safetensors")) for name in "vz")
    # sqrt(a) is moved and stretched so that the last is 0 and the first stays (Lin et al. 2024, algorithm 1).
    roots = alphas_of(plain.scheduler_config).sqrt()
    expected = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    torch.testing.assert_close(alphas_of(zero.scheduler_config).sqrt(), expected, rtol=0, atol=1e-5)
    assert plain.hash != zero.hash


def test_a_folder_with_epsilon_and_zero_terminal_snr_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = tiny_models.write_folder(tmp_path / "m", rescale_betas_zero_snr=True)
    with pytest.raises(UnsupportedFile, match="zero terminal SNR") as caught:
        load_base(str(folder))
    assert "--prediction-type" in str(caught.value.hint)
    assert load_base(str(folder), prediction_type="v_prediction").scheduler_config["rescale_betas_zero_snr"]
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert config["rescale_betas_zero_snr"]
