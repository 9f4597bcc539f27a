"""A judge that knows faces: dlib's ResNet, behind dlib's finder of frontal faces. Optional, for people.

Everything that touches dlib, which has no types, is here. The weights come in the package `face_recognition_models`
(CC0 1.0) and are never downloaded by this program. Its 68-point predictor, trained on photos for research only, is
left alone; five points are enough to align a face. No torch until something is encoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import JudgeMissing
from dbcli.hints import installing
from dbcli.metrics.judges.files import sha256_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

PACKAGES = ("dlib-bin", "face-recognition-models")
RECOGNISER = "dlib_face_recognition_resnet_model_v1.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"
# The longer side of what is searched: the finder knows faces of 80 px and little less, whatever size an image has.
SEARCHED_PX = 1024
DESCRIPTOR_SIZE = 128

# An image -> the descriptor of its largest face, None where it has no face.
SeeFace = Callable[["Image.Image"], Sequence[float] | None]


@dataclass(frozen=True)
class FaceJudge:
    """Descriptors of faces; `see` looks at one image, `weights` are the files' sha256 by their names."""

    see: SeeFace
    weights: Mapping[str, str]
    model: str
    library: str
    source: str
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """16 hex digits that change with the weights or what is searched: descriptors of one key may be mixed."""
        identity = [self.model, dict(self.weights), dict(self.notes)]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What this judge is, as JSON values."""
        return {
            "judge": "face",
            "model": self.model,
            "library": self.library,
            "source": self.source,
            "revision": None,
            "weights_sha256": ", ".join(self.weights.values()),
            "preprocessing": dict(self.notes),
            "features": f"float32 [{DESCRIPTOR_SIZE}], compared by distance",
        }

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 32) -> torch.Tensor:
        """The descriptor of each image's largest face, float32 [N, D] on the CPU; a row of zeros where none is found.

        [0, 0] for no images. They are looked at one by one, whatever `batch_size` is.
        """
        import torch

        if not images:
            return torch.zeros(0, 0)
        rows = [self.see(image) for image in images]
        size = next((len(row) for row in rows if row is not None), DESCRIPTOR_SIZE)
        return torch.tensor([[0.0] * size if row is None else list(row) for row in rows], dtype=torch.float32)


def missing_packages() -> list[str]:
    """The packages that the judge needs and that are not installed, by the names they are installed under."""
    modules = {"dlib-bin": "dlib", "face-recognition-models": "face_recognition_models"}
    return [package for package in PACKAGES if find_spec(modules[package]) is None]


def load_faces(source: str | None = None) -> FaceJudge:
    """The judge from its package, or with its two files from the folder `source`.

    Raises JudgeMissing, with the command that installs it, where it is not there or a file cannot be read.
    """
    missing = [one for one in missing_packages() if source is None or one == PACKAGES[0]]
    if missing:
        raise JudgeMissing(
            f"The judge 'face' needs {' and '.join(missing)}, not installed.", hint=f"{installing(*missing)}"
        )
    folder = Path(source).expanduser() if source else _packaged()
    absent = [name for name in (RECOGNISER, LANDMARKS) if not (folder / name).is_file()]
    if absent:
        raise JudgeMissing(f"The judge 'face' lacks {', '.join(absent)} in {folder}.", hint=installing(PACKAGES[1]))
    return _built(folder, source or "face_recognition_models")


def _packaged() -> Path:
    # Its __init__ imports pkg_resources, which newer setuptools lack; the files alone are wanted.
    found = find_spec("face_recognition_models")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0]) / "models" if places else Path("models")


def _built(folder: Path, source: str) -> FaceJudge:
    import dlib

    try:
        points = dlib.shape_predictor(str(folder / LANDMARKS))
        recogniser = dlib.face_recognition_model_v1(str(folder / RECOGNISER))
    except RuntimeError as error:
        raise JudgeMissing(
            f"The judge 'face' could not be read from {folder}: {' '.join(str(error).split())[:240]}",
            hint=f"{installing(PACKAGES[1])} --force-reinstall",
        ) from error
    finder = dlib.get_frontal_face_detector()

    def see(image: Image.Image) -> list[float] | None:
        pixels = _searched(image)
        places, certainties, _ = finder.run(pixels, 0, 0.0)
        if not len(places):
            return None
        # Sizes come in steps, so that two may be equal.
        largest = max(range(len(places)), key=lambda one: (places[one].area(), certainties[one]))
        return [float(value) for value in recogniser.compute_face_descriptor(pixels, points(pixels, places[largest]))]

    return FaceJudge(
        see,
        {name: sha256_of(folder / name) for name in (RECOGNISER, LANDMARKS)},
        "dlib_face_recognition_resnet_model_v1",
        f"dlib {dlib.__version__}",
        source,
        {
            "searched_longer_side_px": SEARCHED_PX,
            "interpolation": "bicubic, antialiased (Pillow)",
            "finder": "HOG, frontal",
            "face": "the largest, the more certain of equals",
            "aligned": "5 points, 150 px",
        },
    )


def _searched(image: Image.Image) -> Any:
    """The whole image as uint8 [H, W, 3], its longer side SEARCHED_PX."""
    import numpy as np
    from PIL import Image as Images

    scale = SEARCHED_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.ascontiguousarray(image.convert("RGB").resize(size, Images.Resampling.BICUBIC))
