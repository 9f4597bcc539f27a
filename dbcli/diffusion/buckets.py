"""The sizes that a run sees images in: one square, or a few of about its area that fit the photos' own shapes.

Sizes and shapes are width and height in px.
"""

from collections.abc import Sequence

Size = tuple[int, int]
# The corners of a part of an image, in px: left, top, right, bottom.
Box = tuple[float, float, float, float]

# What of a photo may lie outside of its size, and how much smaller than the square a size may be.
MOST_CUT, LEAST_AREA = 0.12, 0.75
# Into how many units a square is divided at most: more would give sizes that hardly differ.
ACROSS = 16


def training_sizes(buckets: str, shapes: Sequence[Size], resolution: int, *, grid_px: int, step_px: int) -> list[Size]:
    """The sizes for photos of these shapes; with `buckets` off the square of `resolution` px alone.

    With `auto` no size is larger than the square, and of each photo at most 12 % lies outside of one of them. They are
    multiples of `grid_px`, which the denoiser halves evenly, or of more; where such sizes are too far apart for these
    shapes, of less, down to `step_px`. Few sizes come before large ones, and the order of the shapes makes no
    difference.
    """
    square = resolution, resolution
    if buckets == "off" or not shapes:
        return [square]
    unit = grid_px
    while unit * ACROSS < resolution:
        unit *= 2
    while True:
        sizes = sizes_of(resolution, unit)
        if all(_covers(shape, sizes) for shape in shapes) or unit // 2 < step_px:
            return _fewest(shapes, sizes) or [square]
        unit //= 2


def size_for(shape: Size, sizes: Sequence[Size]) -> Size:
    """The size that least of a photo is cut away for."""
    return min(sizes, key=lambda size: cut_away(shape, size))


def cut_away(shape: Size, size: Size) -> float:
    """The share of a photo, 0 to 1, outside of the largest part of it with a size's proportions."""
    one, other = shape[0] * size[1], shape[1] * size[0]
    return 1 - min(one, other) / max(one, other)


def crop_box(width: int, height: int, across: float = 0.5, down: float = 0.5, *, aspect: float = 1.0) -> Box:
    """The largest part of an image whose width is `aspect` times its height; 0.5, 0.5 is its centre."""
    across_px, down_px = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - across_px) * across, (height - down_px) * down
    return left, top, left + across_px, top + down_px


def frame_of(
    shape: Size, box: Box, size: Size, *, mirrored: bool = False, is_whole: bool = False
) -> tuple[int, int, int, int, int, int]:
    """How a part of a photo came to its size, as `Conditioning.frames` has it; `box` is the part.

    Height and width of the photo; how far, once scaled, the part is from its top and left edge; height and width.
    With `is_whole` the part is told of as if there were no more of the photo: so small a part, so far from an edge, as
    one around a subject may be, no base has seen.
    """
    left, top, right, bottom = box
    if is_whole:
        return round(bottom - top), round(right - left), 0, 0, size[1], size[0]
    beside = shape[0] - right if mirrored else left
    scaled_top, scaled_left = top * size[1] / (bottom - top), beside * size[0] / (right - left)
    return shape[1], shape[0], round(scaled_top), round(scaled_left), size[1], size[0]


def sizes_of(resolution: int, unit: int) -> list[Size]:
    """Every size of multiples of `unit` that is no larger than a square, and not much smaller."""
    most = resolution**2 // unit**2
    return [
        (width * unit, height * unit)
        for height in range(1, most + 1)
        for width in range(1, most // height + 1)
        if width * height >= LEAST_AREA * most
    ]


def _covers(shape: Size, sizes: Sequence[Size]) -> bool:
    return any(cut_away(shape, size) <= MOST_CUT for size in sizes)


def _fewest(shapes: Sequence[Size], sizes: Sequence[Size]) -> list[Size]:
    """A size at a time the one that fits most of the photos left, and of those the one that shows most of them."""
    chosen: list[Size] = []
    left = sorted(set(shapes))
    count = {shape: shapes.count(shape) for shape in left}
    while left and sizes:
        fitting = {size: [one for one in left if cut_away(one, size) <= MOST_CUT] for size in sizes}

        def worth(size: Size, fitting: dict[Size, list[Size]] = fitting) -> tuple[int, float, float, Size]:
            shown = sum(count[one] * (1 - cut_away(one, size)) for one in fitting[size])
            # Of those that show as many pixels the one that cuts less.
            return sum(count[one] for one in fitting[size]), round(shown * size[0] * size[1]), shown, size

        best = max(sizes, key=worth)
        if not fitting[best]:  # so long a photo that no size fits: as much of it as one can show
            best = size_for(left[0], sizes)
            fitting[best] = left[:1]
        chosen.append(best)
        left = [one for one in left if one not in fitting[best]]
    used = {size_for(shape, chosen) for shape in shapes}
    return sorted(used)
