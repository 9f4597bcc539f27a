"""The judge of faces: with its real weights where they are installed, and what is said where they are not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageEnhance

from dbcli.errors import JudgeMissing
from dbcli.metrics.faces import SAME_PERSON, face_likeness
from dbcli.metrics.judges.faces import LANDMARKS, RECOGNISER, FaceJudge, load_faces, missing_packages

installed = pytest.mark.skipif(
    bool(missing_packages()), reason="the extra 'faces' (104 MB) is not installed: pip install '.[faces]'"
)
# Eileen Collins, NASA (public domain), from scikit-image's astronaut.png.
ASTRONAUT = Path(__file__).parent / "astronaut.webp"


@pytest.fixture(scope="module")
def judge() -> FaceJudge:
    return load_faces()


@installed
def test_one_face_is_recognised_through_light_and_mirror_and_no_face_is_zeros(judge: FaceJudge) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB")
    seen = [photo, ImageEnhance.Brightness(photo).enhance(0.5), photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    rows = judge.encode_images([*seen, Image.new("RGB", (64, 48), "grey")])
    assert rows.shape == (4, 128) and rows.dtype == torch.float32
    assert not rows[3].any()
    dark, mirrored, nobody = face_likeness(rows[1:], rows[:1])
    assert dark is not None and dark > SAME_PERSON
    assert mirrored is not None and mirrored > SAME_PERSON
    assert nobody is None


@installed
def test_the_judge_says_what_it_is(judge: FaceJudge) -> None:
    assert set(judge.weights) == {RECOGNISER, LANDMARKS}
    assert judge.describe()["library"].startswith("dlib ")
    assert len(judge.key) == 16


@installed
def test_a_folder_that_lacks_weights_or_holds_others_is_told(tmp_path: Path) -> None:
    with pytest.raises(JudgeMissing, match=f"lacks {RECOGNISER}"):
        load_faces(str(tmp_path))
    for name in (RECOGNISER, LANDMARKS):
        (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(JudgeMissing, match="could not be read"):
        load_faces(str(tmp_path))


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dlib", "face_recognition_models"):  # None hides an installed module from every import
        monkeypatch.setitem(sys.modules, module, None)
    assert missing_packages() == ["dlib-bin", "face-recognition-models"]
    with pytest.raises(JudgeMissing) as raised:
        load_faces()
    assert "dlib-bin face-recognition-models" in (raised.value.hint or "")
