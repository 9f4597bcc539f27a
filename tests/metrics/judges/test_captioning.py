"""Captions from a local BLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dbcli.errors import JudgeMissing
from dbcli.metrics.judges.captioning import load_captioner
from tests.metrics import annotator_makers


def test_blip_describes_pictures_with_its_own_words_and_always_alike(tmp_path: Path) -> None:
    captioner = load_captioner(str(annotator_makers.write_blip(tmp_path / "blip")), offline=True)
    images = [Image.new("RGB", (50, 40), "red"), Image.new("L", (9, 90))]
    captions = captioner(images)
    assert len(captions) == 2
    assert set(" ".join(captions).split()) <= {"a", "dog", "on", "sofa", "red"}
    assert captioner(images) == captions


def test_a_folder_without_blip_is_exit_4(tmp_path: Path) -> None:
    annotator_makers.write_clipseg(tmp_path / "other")
    with pytest.raises(JudgeMissing) as caught:
        load_captioner(str(tmp_path / "other"), offline=True)
    assert caught.value.exit_code == 4
