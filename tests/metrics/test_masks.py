"""Backgrounds blanked before scoring."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from dbcli.errors import JudgeMissing
from dbcli.metrics.encoders import Judges
from dbcli.metrics.features_cache import FeatureStore
from dbcli.metrics.masking import GREY, ClassMask, load_mask
from tests.metrics.judge_makers import EMBEDDED_SD, SHAPE


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
    picture = Image.new("RGB", (20, 20), "red")
    mask = ClassMask("none", lambda images, noun: torch.zeros(len(images), 8, 8))
    assert mask([picture], "dog")[0].getpixel((19, 19)) == (255, 0, 0)


def test_pictures_that_differ_in_their_background_alone_are_one(judges: Judges, tmp_path: Path) -> None:
    paths = []
    for colour in ("blue", "yellow"):
        picture = Image.new("RGB", (32, 32), colour)
        picture.paste("red", (0, 0, 16, 32))
        picture.save(tmp_path / f"{colour}.png")
        paths.append(tmp_path / f"{colour}.png")
    store = FeatureStore()
    whole = store.features(paths, [judges.dino])[0]
    # the mask's edge is soft, so a few pixels of the ground shine through
    masked = store.features(paths, [judges.dino], mask=ClassMask("left", left_half), noun="dog")[0]
    assert float(masked[0] @ masked[1]) > float(whole[0] @ whole[1])


def test_clipseg_is_read_from_a_local_folder(tmp_path: Path) -> None:
    vision = {**SHAPE, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPSegConfig(
        text_config={**SHAPE, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config=vision,
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    transformers.CLIPSegForImageSegmentation(config).save_pretrained(tmp_path)
    transformers.CLIPTokenizer.from_pretrained(EMBEDDED_SD / "tokenizer").save_pretrained(tmp_path)
    mask = load_mask(str(tmp_path), offline=True)
    maps = mask.probabilities([Image.new("RGB", (50, 40), "red"), Image.new("RGB", (9, 9))], "dog")
    assert maps.shape == (2, 32, 32)
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1
    assert mask.key.startswith("clipseg-")


def test_a_mask_that_cannot_be_had_is_exit_4(tmp_path: Path) -> None:
    with pytest.raises(JudgeMissing):
        load_mask(str(tmp_path / "nowhere"), offline=True)
