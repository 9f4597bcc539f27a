"""A subject's photos as training will see them: their crops, each with what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageOps

from dbcli.reports.grids import FAINT_INK, INK, load_font, wrapped

WARNING_INK = "#b42318"
_MARGIN, _GAP, _TEXT, _TITLE = 16, 12, 13, 18
_FAULT_LINES, _COLUMNS = 2, 4


@dataclass(frozen=True)
class Crop:
    """One photo of the sheet: what training sees of it, its name, and a few words per fault."""

    image: Image.Image
    name: str
    faults: Sequence[str] = ()


def draw_contact_sheet(crops: Sequence[Crop], *, title: str, tile_px: int = 192) -> Image.Image:
    """The crops of the photos, four side by side, as an RGB image. Raises ValueError without any.

    Each is as large as a square of `tile_px` has room for, and keeps its shape.
    """
    if not crops:
        raise ValueError("a contact sheet needs at least one photo")
    across = min(_COLUMNS, len(crops))
    cell = tile_px + round(_TEXT * 1.35) * (1 + _FAULT_LINES) + _GAP
    top = _MARGIN + round(_TITLE * 1.8)
    rows = -(-len(crops) // across)
    width = max(2 * _MARGIN + across * (tile_px + _GAP) - _GAP, 420)
    sheet = Image.new("RGB", (width, top + rows * cell + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    font = load_font(_TITLE, bold=True)
    for line in wrapped(title, font, width - 2 * _MARGIN, 1):
        pen.text((_MARGIN, _MARGIN), line, font=font, fill=INK)
    for number, crop in enumerate(crops):
        place = (_MARGIN + number % across * (tile_px + _GAP), top + number // across * cell)
        _draw_crop(sheet, pen, crop, place, tile_px)
    return sheet


def _draw_crop(sheet: Image.Image, pen: ImageDraw.ImageDraw, crop: Crop, place: tuple[int, int], tile_px: int) -> None:
    left, top = place
    shown = ImageOps.contain(crop.image.convert("RGB"), (tile_px, tile_px), Image.Resampling.LANCZOS)
    x, y = left + (tile_px - shown.width) // 2, top + (tile_px - shown.height) // 2
    sheet.paste(shown, (x, y))
    if crop.faults:
        pen.rectangle((x, y, x + shown.width - 1, y + shown.height - 1), outline=WARNING_INK, width=3)
    font = load_font(_TEXT)
    lines = [(line, FAINT_INK) for line in wrapped(crop.name, font, tile_px, 1)]
    lines += [(line, WARNING_INK) for line in wrapped(", ".join(crop.faults), font, tile_px, _FAULT_LINES)]
    for number, (line, ink) in enumerate(lines):
        pen.text((left, top + tile_px + 4 + round(number * _TEXT * 1.35)), line, font=font, fill=ink)
