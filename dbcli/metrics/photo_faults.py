"""What a person would not notice in a handful of photos before a run has learnt it. No torch.

The limits were set on 108 photos of 20 subjects of the DreamBooth dataset and on blurred, cropped, turned and
re-encoded copies of them; the figures stand beside each. Nothing here finds out what a photo shows: two subjects
in one photo, or none at all, need a pair of eyes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels = NDArray[np.float32]

# Sharp photos reach 0.409, 0.385 and 0.395 at most, looked at with 128, 256 and 512 px a side. Blurred by 2 px of those
# the least is 0.541, 0.465 and 0.429; by 1.5 px of 128, 0.462.
BLURRED = 0.45
# Two photos of one subject reach 0.80; re-encoded, brighter, turned by 2 degrees or cropped by 2 %: 0.874 and more.
NEAR_DUPLICATE = 0.87
# Pairs of a cat always in front of one dark hedge have a median of 0.55; the next subject, in three places, 0.38.
SAME_BACKGROUND = 0.5
SHARE_OF_PHOTOS = 0.6
# Where nearly all of a photo is darker, or lighter, than this there are no colours and edges left to learn from.
DARK, BRIGHT = 60, 225
# Bars of a twentieth and of an eighth, in JPEGs of quality 60, are found in 97 % of 106 photos or more. Of the photos
# without them none has two, and the one that has one is a teapot in the dark.
BLACK, BAR_SHARE, BAR_STEP = 24, 0.03, 8
# Before a plain background 4 of 16 subjects that are smaller are found, and none that is larger.
SMALL_SUBJECT = 1 / 8
_NEAR_COLOUR, _USUAL_IN_FRAME, _STRANGE_IN_FRAME = 8.0, 0.2, 0.1
_TILE_PX = 64
_FLAT = 8.0
_BLUR_PX = 9


@dataclass(frozen=True)
class Look:
    """What one photo looks like: softness 0 (sharp) to 1, a small copy and its mirror image, its frame's colours.

    `darkest` and `brightest` (0 to 255) hold nine tenths of the pixels between them. Softness, bars and the subject's
    share are those of the part that training sees; the share is None where nothing can be said of it.
    """

    width: int
    height: int
    softness: float
    darkest: float
    brightest: float
    small: Pixels
    mirrored: Pixels
    frame: Pixels
    bars: bool = False
    subject_share: float | None = None

    @property
    def short_side_px(self) -> int:
        return min(self.width, self.height)


def look_at(photo: Image.Image, resolution: int = 512, part: Image.Image | None = None) -> Look:
    """Measures one RGB photo of any size, its softness at the pixels that its short side is trained with; about 100 ms.

    `part` is what training sees of it, the middle square if nothing else.
    """
    square = middle_square(photo) if part is None else part
    small = _unit(np.asarray(photo.resize((24, 24), Image.Resampling.BOX), dtype=np.float32))
    mirrored = _unit(np.asarray(photo.resize((24, 24), Image.Resampling.BOX), dtype=np.float32)[:, ::-1])
    grey = _grey(photo, 512)
    darkest, brightest = (float(value) for value in np.percentile(grey, (5, 95)))
    return Look(
        photo.width,
        photo.height,
        softness(_grey(square, resolution)),
        darkest,
        brightest,
        small,
        mirrored,
        _frame_colours(photo),
        has_bars(square),
        subject_share(square),
    )


def middle_square(photo: Image.Image) -> Image.Image:
    """What the centre crop keeps of a photo, to the pixel."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side))


def has_bars(square: Image.Image) -> bool:
    """Whether two opposite edges are black bars that end at once."""
    grey = np.asarray(square.convert("L").resize((256, 256), Image.Resampling.BOX), dtype=np.float32)
    left, top, right, bottom = (_is_bar(edge) for edge in (grey.T, grey, grey.T[::-1], grey[::-1]))
    return (left and right) or (top and bottom)


def _is_bar(rows: Pixels) -> bool:
    """Whether the first rows are one; rows is float32 [256, 256]."""
    black = np.percentile(rows, 98, axis=1) <= BLACK
    height = len(rows) if black.all() else int(black.argmin())
    if not BAR_SHARE * len(rows) <= height < len(rows) / 2:
        return False
    # A dark room has no such edge. The row at the edge itself may be half bar, half picture.
    return float(rows[height + 1].mean() - rows[height - 2].mean()) >= BAR_STEP


def subject_share(square: Image.Image) -> float | None:
    """Which share of a square, 0 to 1, has colours that its outer eighth has not.

    None where that outer part is no plain background, or nothing stands out from it. Colours are near each other by
    CIELAB with half the weight on lightness, which a shadow changes most.
    """
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    to_lab = ImageCms.buildTransform(profiles[0], profiles[1], "RGB", "LAB")
    small = square.convert("RGB").resize((64, 64), Image.Resampling.BOX)
    bytes_ = np.asarray(ImageCms.applyTransform(small, to_lab))
    # Pillow holds a* and b* as signed bytes.
    lab = np.dstack([bytes_[..., :1] * np.float32(100 / 255 * 0.5**0.5), bytes_[..., 1:].view(np.int8)])
    frame = np.ones((64, 64), dtype=bool)
    frame[8:-8, 8:-8] = False
    around = lab[frame][::4].astype(np.float32)
    near = (np.square(lab.reshape(-1, 1, 3) - around).sum(axis=2) <= _NEAR_COLOUR**2).mean(axis=1).reshape(64, 64)
    strange = near < _USUAL_IN_FRAME
    share = float(strange[~frame].sum() / strange.size)
    return share if strange[frame].mean() < _STRANGE_IN_FRAME and share > 0.004 else None


def softness(grey: Pixels) -> float:
    """How soft the sharpest tenth of an image is, 0 to 1; grey is float32 [H, W].

    Each tile with something in it is blurred once more: what is soft already changes little (Crete-Roffet et al.,
    The Blur Effect, 2007). The sharpest tiles decide, as a blurred background behind a sharp subject is no fault.
    An image without any texture counts as sharp: nothing can be said of it.
    """
    found = []
    for top in range(0, grey.shape[0] - _TILE_PX + 1, _TILE_PX // 2):
        for left in range(0, grey.shape[1] - _TILE_PX + 1, _TILE_PX // 2):
            tile = grey[top : top + _TILE_PX, left : left + _TILE_PX]
            if tile.std() >= _FLAT:
                found.append(max(_kept_when_blurred(tile, axis) for axis in (0, 1)))
    return float(np.percentile(found, 10)) if found else 0.0


def near_duplicates(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Pairs of photos (first, second) that show the same image, mirrored copies included."""
    return [
        (one, other)
        for other in range(len(looks))
        for one in range(other)
        if max(looks[one].small @ looks[other].small, looks[one].mirrored @ looks[other].small) > NEAR_DUPLICATE
    ]


def same_background(looks: Sequence[Look]) -> list[int]:
    """The photos whose frames all have the same colours, where they are most of at least three; else none.

    The frame is the outer sixth of a photo at the top, left and right, where the subject seldom is.
    """
    overlaps = np.array([[np.minimum(one.frame, other.frame).sum() for other in looks] for one in looks])
    groups = [_alike_in_frame(number, overlaps) for number in range(len(looks))]
    largest = max(groups, key=len, default=[])
    return largest if len(largest) >= max(3, SHARE_OF_PHOTOS * len(looks)) else []


def _alike_in_frame(first: int, overlaps: Pixels) -> list[int]:
    """Photos whose frames overlap with the first one's and with each other's, the nearest taken first."""
    group: list[int] = []
    for number in np.argsort(-overlaps[first], kind="stable").tolist():
        if all(overlaps[number, member] >= SAME_BACKGROUND for member in group):
            group.append(number)
    return sorted(group)


def _grey(photo: Image.Image, short_side_px: int) -> Pixels:
    scale = short_side_px / min(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    # Bicubic up and box down: an enlarged photo must stay as soft as it is, a reduced one keep its edges.
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(photo.convert("L").resize(size, how), dtype=np.float32)


def _kept_when_blurred(tile: Pixels, axis: int) -> float:
    """The share of neighbouring differences along an axis that a further blur leaves."""
    sums = np.cumsum(np.insert(tile.astype(np.float64), 0, 0, axis=axis), axis=axis)
    length = tile.shape[axis]
    blurred = np.take(sums, range(_BLUR_PX, length + 1), axis) - np.take(sums, range(length + 1 - _BLUR_PX), axis)
    middle = np.take(tile, range(_BLUR_PX // 2, length - _BLUR_PX // 2), axis)
    before = np.abs(np.diff(middle, axis=axis))
    lost = np.maximum(0, before - np.abs(np.diff(blurred / _BLUR_PX, axis=axis)))
    total = float(before.sum())
    return (total - float(lost.sum())) / total if total else 1.0


def _frame_colours(photo: Image.Image) -> Pixels:
    """Shares of 512 colours in the frame of a photo, float32 [512], sum 1."""
    pixels = np.asarray(photo.resize((64, 64), Image.Resampling.BOX)).astype(np.int64)
    frame = np.zeros((64, 64), dtype=bool)
    frame[:10] = frame[:, :10] = frame[:, -10:] = True
    coarse = pixels[frame] // 32
    counts: Pixels = np.bincount(coarse @ np.array([64, 8, 1]), minlength=512).astype(np.float32)
    return np.asarray(counts / counts.sum())


def _unit(pixels: Pixels) -> Pixels:
    # Each channel by itself: photos of a green room are not alike for being green.
    flat = (pixels - pixels.mean(axis=(0, 1))).ravel()
    length = float(np.linalg.norm(flat))
    return flat / length if length > 1 else np.zeros_like(flat)
