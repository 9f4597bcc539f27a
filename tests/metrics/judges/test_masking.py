"""Backgrounds blanked before scoring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from dbcli.errors import JudgeMissing
from dbcli.metrics.judges.features_cache import FeatureStore
from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.judges.masking import GREY, ClassMask, load_mask
from tests.metrics import annotator_makers


def left_half(images, noun: str) -> torch.Tensor:
    maps = torch.zeros(len(images), 8, 8)
    maps[:, :, :4] = 1
    return maps


def test_what_is_not_the_noun_becomes_grey() -> None:
    found = ClassMask("left", left_half)([Image.new("RGB", (80, 40), "red")], "dog")[0]
    assert found.getpixel((5, 20)) == (255, 0, 0)
    assert found.getpixel((75, 20)) == GREY
    assert found.size == (80, 40)


def test_a_picture_without_the_noun_stays_whole() -> None:
    image = Image.new("RGB", (20, 20), "red")
    mask = ClassMask("none", lambda images, noun: torch.zeros(len(images), 8, 8))
    assert mask([image], "dog")[0].getpixel((19, 19)) == (255, 0, 0)


def test_pictures_that_differ_in_their_background_alone_are_one(judges: Judges, tmp_path: Path) -> None:
    paths = []
    for colour in ("blue", "yellow"):
        image = Image.new("RGB", (32, 32), colour)
        image.paste("red", (0, 0, 16, 32))
        image.save(tmp_path / f"{colour}.png")
        paths.append(tmp_path / f"{colour}.png")
    store = FeatureStore()
    whole = store.features(paths, [judges.dino])[0]
    # the mask's edge is soft, so a few pixels of the ground shine through
    masked = store.features(paths, [judges.dino], mask=ClassMask("left", left_half), noun="dog")[0]
    assert float(masked[0] @ masked[1]) > float(whole[0] @ whole[1])


def test_clipseg_is_read_from_a_local_folder(tmp_path: Path) -> None:
    mask = load_mask(str(annotator_makers.write_clipseg(tmp_path)), offline=True)
    maps = mask.probabilities([Image.new("RGB", (50, 40), "red"), Image.new("RGB", (9, 9))], "dog")
    assert maps.shape == (2, 32, 32)
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1
    assert mask.key.startswith("clipseg-")


@pytest.mark.parametrize("size", [48, {"height": 48, "width": 48}])
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_clipseg_is_fed_what_its_processor_says(tmp_path: Path, size: object, file: str) -> None:
    folder = annotator_makers.write_clipseg(tmp_path)
    plain = load_mask(str(folder), offline=True)
    described = {"size": size, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 2}
    (folder / file).write_text(json.dumps(described if file[:3] == "pre" else {"image_processor": described}))
    mask = load_mask(str(folder), offline=True)
    image = Image.radial_gradient("L").convert("RGB")
    maps = mask.probabilities([image], "dog")
    # The decoder answers at the size that the model was fed.
    assert maps.shape == (1, 48, 48)
    assert mask.key != plain.key
    model = transformers.CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    words = transformers.CLIPTokenizer.from_pretrained(folder)(["dog"], return_tensors="pt").input_ids
    small = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    pixels = torch.from_numpy((small - 0.5) / 0.25).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model(input_ids=words, pixel_values=pixels, interpolate_pos_encoding=True).logits.sigmoid()
    assert torch.allclose(maps, expected.reshape(1, 48, 48), atol=1e-6)


def test_a_processor_that_says_no_square_is_exit_4(tmp_path: Path) -> None:
    folder = annotator_makers.write_clipseg(tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 48, "width": 32}}))
    with pytest.raises(JudgeMissing, match="not square"):
        load_mask(str(folder), offline=True)


def test_a_mask_that_cannot_be_had_is_exit_4(tmp_path: Path) -> None:
    with pytest.raises(JudgeMissing):
        load_mask(str(tmp_path / "nowhere"), offline=True)
