"""Captions from local models: Florence-2, a chat model that reads images, and BLIP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dbcli.errors import JudgeMissing
from dbcli.metrics.judges import captioning
from dbcli.metrics.judges.captioning import load_captioner
from tests.metrics import annotator_makers

IMAGES = [Image.new("RGB", (50, 40), "red"), Image.new("L", (9, 90))]


@pytest.mark.parametrize("write", [annotator_makers.write_florence, annotator_makers.write_chat_model])
def test_a_photo_is_described_always_alike(write: Callable[[Path], Path], tmp_path: Path) -> None:
    captioner = load_captioner(str(write(tmp_path / "model")), offline=True)
    captions = captioner(IMAGES, "dog")
    assert len(captions) == 2 and all(isinstance(one, str) and "<" not in one for one in captions)
    assert captioner(IMAGES, "dog") == captions


def test_blip_of_older_projects_describes_with_its_own_words(tmp_path: Path) -> None:
    captioner = load_captioner(str(annotator_makers.write_blip(tmp_path / "blip")), offline=True)
    captions = captioner(IMAGES, "dog")
    assert set(" ".join(captions).split()) <= {"a", "dog", "on", "sofa", "red"}
    assert captioner(IMAGES, "dog") == captions


def asked_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a model is given beside the pixels, and the answer it is made to give."""
    asked: dict[str, Any] = {}
    load = captioning._loaded

    def loaded(model_class: Any, folder: Path, *rest: Any) -> tuple[Any, Any]:
        model, processor = load(model_class, folder, *rest)
        whole = model.generate

        def generate(**given: Any) -> Any:
            asked["text"] = processor.batch_decode(given["input_ids"])[0]
            return whole(**given)

        model.generate = generate
        return model, processor

    monkeypatch.setattr(captioning, "_loaded", loaded)
    load_captioner(str(folder), offline=True)(IMAGES[:1], "dog")
    return asked


def test_a_chat_model_is_asked_for_what_surrounds_the_noun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_of(annotator_makers.write_chat_model(tmp_path / "chat"), monkeypatch)
    # The spaces are not in its small vocabulary as they stand.
    assert "adog" in asked["text"].replace("Ġ", "").replace(" ", "") and "<|image_pad|>" in asked["text"]


def test_weights_in_several_files_are_one_model(tmp_path: Path) -> None:
    whole = load_captioner(str(annotator_makers.write_chat_model(tmp_path / "one")), offline=True)
    folder = annotator_makers.write_chat_model(tmp_path / "several", shards=True)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert load_captioner(str(folder), offline=True)(IMAGES, "dog") == whole(IMAGES, "dog")


def test_a_description_becomes_a_caption() -> None:
    tidied = captioning._tidied
    assert tidied(" A dog on a\nsofa. It sleeps.") == "a dog on a sofa"
    assert tidied("Two dogs in the snow!") == "Two dogs in the snow"
    assert tidied('"The dog beside 2.5 m of wall,"') == "the dog beside 2.5 m of wall"
    assert len(tidied("dog " * 99).split()) == captioning.MOST_WORDS
    assert tidied("") == ""


def test_a_folder_of_another_model_is_exit_4(tmp_path: Path) -> None:
    annotator_makers.write_clipseg(tmp_path / "other")
    with pytest.raises(JudgeMissing) as caught:
        load_captioner(str(tmp_path / "other"), offline=True)
    assert caught.value.exit_code == 4
