from __future__ import annotations

import pytest
from PIL import Image

from dbcli.reports.contact_sheet import WARNING_INK, Crop, draw_contact_sheet


def test_a_crop_is_shown_whole_in_its_own_shape_and_a_faulty_one_has_a_red_frame() -> None:
    wide = Image.new("RGB", (300, 100), "blue")
    wide.paste((0, 128, 0), (100, 0, 200, 100))
    sheet = draw_contact_sheet([Crop(wide, "a.jpg"), Crop(wide, "b.jpg", ["blurry"])], title="dog", tile_px=100)
    red = tuple(int(WARNING_INK[at : at + 2], 16) for at in (1, 3, 5))
    colours = {colour for _, colour in sheet.getcolors(1_000_000) or []}
    assert (0, 128, 0) in colours
    # A third of a tile's height, with the green third of its width in the middle.
    assert sheet.getcolors(1_000_000) is not None
    blue = sum(count for count, colour in sheet.getcolors(1_000_000) or [] if colour == (0, 0, 255))
    assert 0.8 * 2 * 67 * 33 < blue <= 2 * 67 * 33
    assert red in colours
    assert red not in {c for _, c in draw_contact_sheet([Crop(wide, "a.jpg")], title="x").getcolors(1_000_000) or []}


def test_any_name_can_stand_under_a_crop() -> None:
    draw_contact_sheet([Crop(Image.new("L", (64, 64)), "\x1b[31m\u202e" + "長" * 300, ["x" * 500])], title="")


def test_a_sheet_needs_a_photo() -> None:
    with pytest.raises(ValueError):
        draw_contact_sheet([], title="dog")
