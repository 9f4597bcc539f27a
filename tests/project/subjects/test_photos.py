from __future__ import annotations

import io
import os
import random
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image, ImageCms, features

from dbcli.errors import PhotoError
from dbcli.project.subjects import photos as module
from dbcli.project.subjects.photos import Photo, Skipped, read_photo, reasons
from tests.project import photo_makers as make

SRGB_NOTE = "colours converted to sRGB"


def photo(path: Path) -> Photo:
    result = read_photo(path)
    assert isinstance(result, Photo), result
    return result


def refused(path: Path) -> str:
    result = read_photo(path)
    assert isinstance(result, Skipped) and not result.stray, result
    assert str(path) in result.text
    return result.reason


# --- what each format and mode becomes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.tiff", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.webp", {"lossless": True}),
        ("a.gif", {}),
        ("a.JPG", {"format": "JPEG", "quality": 100, "subsampling": 0}),
    ],
)
def test_every_format_gives_its_pixels(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    read = photo(make.save(tmp_path / name, **options))
    assert (read.image.mode, read.image.size, (read.width, read.height)) == ("RGB", (80, 96), (80, 96))
    assert all(abs(a - b) <= 2 for a, b in zip(read.image.getpixel((40, 40)), (200, 100, 50), strict=True))
    assert read.notes == ()


def test_a_photo_without_a_name_ending_is_known_by_its_content(tmp_path: Path) -> None:
    assert photo(make.save(tmp_path / "download", format="PNG")).width == 80


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (77, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),  # 51/255 = 0.2 of black on white
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("I;16", 0, (0, 0, 0)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_every_mode_becomes_eight_bit_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    path = make.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), Image.new(mode, (70, 70), colour))
    assert photo(path).image.getpixel((30, 30)) == expected


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = make.save(tmp_path / "a.jpg", Image.new("CMYK", (70, 70), (0, 255, 255, 0)), quality=95)
    red, green, blue = photo(path).image.getpixel((30, 30))
    assert red > 240 and green < 15 and blue < 15


def test_sixteen_bit_tall_pictures_are_read_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbcli.project.images.pixels._STRIP_PIXELS", 64 * 10)
    image = Image.new("I;16", (64, 95), 257 * 10)
    image.paste(257 * 200, (0, 90, 64, 95))
    read = photo(make.save(tmp_path / "a.png", image)).image
    assert [read.getpixel((5, y)) for y in (0, 9, 10, 89, 90, 94)] == [(10,) * 3] * 4 + [(200,) * 3] * 2


def test_a_floating_point_tiff_is_refused(tmp_path: Path) -> None:
    assert "floating-point" in refused(make.save(tmp_path / "a.tif", Image.new("F", (70, 70), 0.5)))


def test_a_transparent_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (70, 70), (1, 2, 3))
    image.paste((9, 9, 9), (0, 0, 70, 20))
    read = photo(make.save(tmp_path / "a.png", image, transparency=(1, 2, 3)))
    assert read.image.getpixel((5, 50)) == (255, 255, 255)
    assert read.image.getpixel((5, 5)) == (9, 9, 9)
    assert read.notes == ("transparent parts became white",)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_several_frames_the_first_is_taken_and_said(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (70, 70), (index * 100, 0, 0)) for index in (1, 2)]
    options = {"lossless": True} if name == "a.webp" else {}
    read = photo(make.save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options))
    assert read.image.getpixel((5, 5)) == (100, 0, 0)
    assert "the first was taken" in read.notes[0]


def test_an_mpo_of_a_phone_is_a_plain_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    make.plain().save(path, format="MPO", save_all=True, append_images=[make.plain((0, 0, 0))])
    assert photo(path).notes == ()


# --- upright, bare, sRGB

UPRIGHT = {
    1: ("top left", "top right"),
    2: ("top right", "top left"),
    3: ("bottom right", "bottom left"),
    4: ("bottom left", "bottom right"),
    5: ("top left", "bottom left"),
    6: ("top right", "bottom right"),
    7: ("bottom right", "top right"),
    8: ("bottom left", "top left"),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_every_exif_orientation_is_turned_upright(tmp_path: Path, name: str, orientation: int) -> None:
    path = make.save(tmp_path / name, make.marked(), exif=make.exif_with(orientation))
    image = photo(path).image
    assert image.size == ((96, 80) if orientation < 5 else (80, 96))
    assert (make.corner_of(image, make.RED), make.corner_of(image, make.GREEN)) == UPRIGHT[orientation]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path: Path, orientation: int) -> None:
    path = make.save(tmp_path / "a.png", make.marked(), exif=make.exif_with(orientation))
    assert make.corner_of(photo(path).image, make.RED) == "top left"


def test_broken_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    path = make.save(tmp_path / "a.jpg", make.marked(), exif=make.exif_with(6))
    data = bytearray(path.read_bytes())
    at = data.index(b"Exif\0\0") + 6
    data[at + 4 : at + 8] = b"\xff\xff\xff\xf0"
    path.write_bytes(data)
    assert photo(path).width == 96


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_nothing_but_pixels_is_stored(tmp_path: Path, name: str) -> None:
    read = photo(make.save(tmp_path / name, exif=make.exif_with(1)))
    assert b"SECRETCAMERA" in (tmp_path / name).read_bytes()
    assert b"SECRETCAMERA" not in read.png
    with Image.open(io.BytesIO(read.png)) as stored:
        stored.load()
        assert dict(stored.getexif()) == {} and stored.info == {}


def test_a_wide_gamut_photo_is_converted_to_srgb(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    path = make.save(tmp_path / "a.png", icc_profile=lab)
    assert photo(path).image.getpixel((5, 5)) == (200, 100, 50)  # a profile for other channels is not used
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    path = make.save(tmp_path / "b.png", icc_profile=bytes(srgb))
    assert photo(path).image.getpixel((5, 5)) == (200, 100, 50)
    # The same profile with its red and green colourants exchanged: red must come out as green.
    red, green = srgb.index(b"rXYZ"), srgb.index(b"gXYZ")
    srgb[red : red + 4], srgb[green : green + 4] = b"gXYZ", b"rXYZ"
    for name in (b"sRGB", "sRGB".encode("utf-16-be")):
        srgb = srgb.replace(name, bytes(len(name) - 1) + b"X")
    path = make.save(tmp_path / "c.png", make.plain((255, 0, 0)), icc_profile=bytes(srgb))
    read = photo(path)
    assert read.notes and read.notes[0].startswith(SRGB_NOTE)
    assert all(abs(a - b) <= 2 for a, b in zip(read.image.getpixel((5, 5)), make.GREEN, strict=True))


def test_a_damaged_colour_profile_is_ignored_and_said(tmp_path: Path) -> None:
    read = photo(make.save(tmp_path / "a.png", icc_profile=b"nonsense" * 30))
    assert read.image.getpixel((5, 5)) == (200, 100, 50)
    assert read.notes == ("its colour profile is damaged and was ignored",)


@pytest.mark.parametrize(("name", "size"), [("a.jpg", (3200, 2400)), ("a.png", (2000, 1500))])
def test_a_large_photo_is_reduced_without_squashing(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    read = photo(make.save(tmp_path / name, make.plain(size=size)))
    assert (read.width, read.height) == (1365, 1024)  # 4 : 3
    assert read.notes == (f"reduced from {size[0]} x {size[1]} to 1365 x 1024 pixels",)
    assert read.image.getpixel((600, 500)) == pytest.approx((200, 100, 50), abs=2)


# --- what is refused


@pytest.mark.parametrize("size", [(1, 1), (63, 200), (200, 63)])
def test_a_tiny_picture_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    reason = refused(make.save(tmp_path / "a.png", make.plain(size=size)))
    assert reason == f"{size[0]} x {size[1]} pixels; both sides need at least 64"


def test_a_strip_of_a_picture_is_refused(tmp_path: Path) -> None:
    assert photo(make.save(tmp_path / "a.png", make.plain(size=(64 * 16, 64)))).width == 1024
    assert "longer than 16 times" in refused(make.save(tmp_path / "a.png", make.plain(size=(64 * 16 + 1, 64))))


def test_64_pixels_are_enough(tmp_path: Path) -> None:
    assert photo(make.save(tmp_path / "a.png", make.plain(size=(64, 64)))).width == 64


@pytest.mark.parametrize("size", [(10_001, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (100_000_000, 64)])
def test_a_picture_that_claims_too_much_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(make.png_claiming(*size))
    assert "100 megapixels" in refused(tmp_path / "a.png")


def test_a_file_with_too_many_bytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(200_000_001)
    assert refused(tmp_path / "a.jpg") == "200,000,001 bytes, more than the 200,000,000 allowed"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.tif", "a.bmp"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_cut_file_is_refused_by_name(tmp_path: Path, name: str, part: float) -> None:
    noise = Image.frombytes("RGB", (80, 80), random.Random(0).randbytes(80 * 80 * 3))
    path = make.save(tmp_path / name, noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert refused(path)


def test_a_cut_jpeg_says_so(tmp_path: Path) -> None:
    path = make.save(tmp_path / "a.jpg", Image.effect_noise((200, 200), 90))
    path.write_bytes(path.read_bytes()[:-2000])
    assert refused(path).startswith("damaged or truncated")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jpg", b"", "an empty file"),
        ("a.jpg", b"<svg onload=alert(1)>", "not a JPEG"),
        ("a.png", b"\x89PNG\r\n\x1a\n", ""),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "not a JPEG"),
        ("a.jpg", b"8BPS\0\1" + b"\0" * 40, "not a JPEG"),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"),
    ],
)
def test_what_only_claims_to_be_a_photo_is_refused(
    tmp_path: Path, name: str, content: bytes, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbcli.project.images.pixels.find_spec", lambda name: None)
    (tmp_path / name).write_bytes(content)
    assert complaint in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["a.heic", "a.avif"])
def test_the_extra_reads_heic_and_avif(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    path = make.save(tmp_path / name, make.marked(), quality=95)
    read = photo(path)
    assert read.image.size == (96, 80)
    assert (make.corner_of(read.image, make.RED), make.corner_of(read.image, make.GREEN)) == UPRIGHT[1]
    path.write_bytes(path.read_bytes()[:-300])
    assert refused(path)


def test_mutated_photos_never_crash_the_reader(tmp_path: Path) -> None:
    chance = random.Random(1)
    noise = Image.frombytes("RGB", (72, 72), chance.randbytes(72 * 72 * 3))
    counted = {Photo: 0, Skipped: 0}
    for name in ("a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif"):
        whole = make.save(tmp_path / name, noise, exif=make.exif_with(6)).read_bytes()
        for _ in range(25):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(min(len(data), 400))] = chance.randrange(256)
            (tmp_path / name).write_bytes(data)
            counted[type(read_photo(tmp_path / name))] += 1
    assert sum(counted.values()) == 150 and min(counted.values()) > 10


# --- files and folders


def test_a_folder_is_walked_sorted_and_strays_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "Fotos ünï 犬"
    for index, name in enumerate(["b.png", "a.png", "sub/c.png", "ü.png", "犬.png"]):
        make.save(folder / name, make.plain((index * 40, 0, 0)))
    make.save(folder / ".ipynb_checkpoints" / "a-checkpoint.png")
    make.save(folder / "._a.png")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "notes.txt").write_text("x")
    (folder / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  " + b"\0" * 40)
    intake = make.Intake([folder])
    assert [one.source.relative_to(folder).as_posix() for one in intake.photos] == [
        "a.png",
        "b.png",
        "sub/c.png",
        "ü.png",
        "犬.png",
    ]
    assert {one.path.name for one in intake.skipped} == {
        ".DS_Store",
        "._a.png",
        "Thumbs.db",
        "notes.txt",
        "film.mov",
    }
    assert all(one.stray for one in intake.skipped) and intake.refused == []


def test_one_bad_photo_does_not_stop_the_others(tmp_path: Path) -> None:
    make.save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0broken")
    intake = make.Intake([tmp_path])
    assert len(intake.photos) == 1
    assert [one.path.name for one in intake.refused] == ["b.jpg"]


def test_the_same_pixels_are_taken_once_whatever_the_file(tmp_path: Path) -> None:
    make.save(tmp_path / "a.png")
    make.save(tmp_path / "b.bmp")
    make.save(tmp_path / "c.png", make.plain((1, 1, 1)))
    intake = make.Intake([tmp_path, tmp_path / "a.png"])
    assert [one.source.name for one in intake.photos] == ["a.png", "c.png"]
    assert [one.text for one in intake.skipped] == [f"{tmp_path / 'b.bmp'}: the same image as a.png"]


def test_captions_beside_photos_are_read(tmp_path: Path) -> None:
    for index, name in enumerate(["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]):
        make.save(tmp_path / name, make.plain((index * 40, 0, 0)))
    (tmp_path / "a.txt").write_text("\ufeff a sks dog,\n on\ta “red” sofa \x1b\n", encoding="utf-8")
    (tmp_path / "b.caption").write_text("sks")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d.txt").write_text("  \n")
    intake = make.Intake([tmp_path])
    assert intake.captions == ["a sks dog, on a “red” sofa", "sks", None, None, None]
    assert intake.skipped == []
    assert intake.notes == [
        "c.jpg: the caption c.txt was left out: not text in UTF-8, or in UTF-16 with a byte order mark"
    ]


@pytest.mark.parametrize(
    ("photo", "caption"),
    [
        ("a.JPG", "a.TXT"),
        ("a.jpg", "a.Txt"),
        ("a.Jpeg", "a.txt"),
        ("a.png", "a.CAPTION"),
    ],
)
def test_a_caption_is_found_in_any_case_of_both_endings(tmp_path: Path, photo: str, caption: str) -> None:
    make.save(tmp_path / photo, make.plain((40, 0, 0)))
    (tmp_path / caption).write_text("a red wall")
    intake = make.Intake([tmp_path])
    assert (intake.captions, intake.skipped) == (["a red wall"], [])
    # A photo that is named alone brings its caption too.
    assert make.Intake([tmp_path / photo]).captions == ["a red wall"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_caption_in_unicode_is_read_by_its_mark(tmp_path: Path, encoding: str) -> None:
    make.save(tmp_path / "a.jpg", make.plain((40, 0, 0)))
    (tmp_path / "a.txt").write_text("a söfa, “red”", encoding=encoding)
    assert make.Intake([tmp_path]).captions == ["a söfa, “red”"]


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "latin-1"])
def test_a_caption_in_another_encoding_is_left_out_by_name(tmp_path: Path, encoding: str) -> None:
    make.save(tmp_path / "a.jpg", make.plain((40, 0, 0)))
    (tmp_path / "a.TXT").write_bytes("a söfa".encode(encoding))
    intake = make.Intake([tmp_path])
    assert intake.captions == [None]
    assert "a.jpg: the caption a.TXT was left out: not text in UTF-8" in intake.notes[0]


def test_lower_case_text_files_come_first_where_there_are_several(tmp_path: Path) -> None:
    make.save(tmp_path / "a.jpg", make.plain((40, 0, 0)))
    for name in ("a.caption", "a.TXT", "a.txt"):
        (tmp_path / name).write_text(name.replace("a.", "from "))
    assert make.Intake([tmp_path]).captions == ["from txt"]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_without_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make.plain((200, 40, 10)).save(tmp_path / "a.avif")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    photo = read_photo(tmp_path / "a.avif")
    assert isinstance(photo, Photo), photo
    assert photo.image.getpixel((40, 40)) == pytest.approx((200, 40, 10), abs=6)


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="pillow-heif is installed")
def test_what_lacks_a_package_is_told_once_with_the_number_of_files(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    lines = reasons(make.Intake([tmp_path]).skipped)
    assert len(lines) == 2
    assert "broken.jpg: " in lines[0]
    assert lines[1].startswith("12 files, 00.HEIC among them: HEIC needs one more package: ")
    assert lines[1].endswith("pillow-heif")


def test_an_endless_caption_is_left_out(tmp_path: Path) -> None:
    path = make.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("dog " * 1000)
    read = photo(path)
    assert read.caption is None and "longer than 2,000" in read.notes[0]


def test_a_source_that_is_not_there_stops_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="typo.jpg") as caught:
        make.Intake([tmp_path / "typo.jpg"])
    assert caught.value.exit_code == 3


def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    intake = make.Intake([tmp_path])
    assert (intake.photos, intake.skipped) == ([], [])


def test_a_pipe_and_a_broken_link_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    reasons = {one.path.name: one.reason for one in make.Intake([tmp_path]).skipped}
    assert reasons == {"pipe.jpg": "not a file", "link.jpg": "a broken link"}


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    make.save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(make.Intake([tmp_path]).photos) == 1


def test_the_wrong_folder_is_noticed_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    for index in range(4):
        (tmp_path / f"{index}.txt").touch()
    with pytest.raises(PhotoError, match="right folder"):
        make.Intake([tmp_path])
