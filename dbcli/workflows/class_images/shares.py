"""The class images of one sentence shared among the sizes that the photos beside them have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dbcli.diffusion.buckets import Size, size_for
from dbcli.project.settings.profile_settings import PriorSettings


def shared(settings: PriorSettings, shapes: Sequence[Size], sizes: Sequence[Size]) -> dict[Size, PriorSettings]:
    """By size the settings of its class images: `settings.images` shared in proportion to photos of these shapes.

    Each gets at least one; a size that no photo has is left out.
    """
    if not shapes:
        return dict.fromkeys(sizes, settings)
    of_photos, found, before = [size_for(shape, sizes) for shape in shapes], {}, 0
    for size in sizes:
        upto = before + of_photos.count(size)
        # Rounded where shares end, so that together they are as many as they should be.
        share = upto * settings.images // len(shapes) - before * settings.images // len(shapes)
        if upto > before:
            found[size] = settings.model_copy(update={"images": max(1, share)})
        before = upto
    return found


def own_photos(files: Sequence[Path], size: Size, sizes: Sequence[Size]) -> list[Path]:
    """Of a person's own class photos those that fit a size better than the others; all where there are none."""
    from PIL import Image

    fitting = []
    for file in files if len(sizes) > 1 else ():
        with Image.open(file, formats=("PNG",)) as image:
            if size_for(image.size, sizes) == size:
                fitting.append(file)
    return fitting or list(files)
