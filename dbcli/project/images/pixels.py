"""One picture file to upright 8-bit sRGB pixels: the only place that decodes what a stranger made."""

from __future__ import annotations

import io
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dbcli.hints import installing
from dbcli.project.files.names import printable

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
MIN_SIDE_PX = 64
MAX_PIXELS = 100_000_000
MAX_ASPECT = 16
# Stable Diffusion 1.x and 2.x train at 512 and 768 px: more is only memory and time.
KEEP_SHORT_SIDE_PX = 1024
# Converting a 100-megapixel picture as a whole takes gigabytes; in strips it stays small.
_STRIP_PIXELS = 4_000_000
_ORIENTATION = 0x0112  # the EXIF tag
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class NotUsable(Exception):
    """A picture that cannot be used; the text is the reason, for a person."""


class NeedsPackage(NotUsable):
    """A picture that one more package could read."""

    def __init__(self, reason: str, package: str) -> None:
        super().__init__(reason)
        self.package = package


def decode(path: Path) -> tuple[Image.Image, list[str]]:
    """Return the picture in mode RGB, upright, in sRGB, its short side at most 1024 px, and what was changed.

    Transparency becomes white; of an animation the first frame is taken; 16-bit values are scaled to 8.
    Raises NotUsable with the reason for everything else.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Sizes are judged below, by one rule for all formats; damaged EXIF becomes a note.
            warnings.simplefilter("ignore")
            with _open(file) as opened:
                return _prepared(opened)
    except NotUsable:
        raise
    except MemoryError as error:
        raise NotUsable("too large for this machine's RAM") from error
    except PermissionError as error:
        raise NotUsable("cannot be read: permission denied") from error
    except Exception as error:  # decoders raise whatever they like on broken files
        raise NotUsable(_reason(error)) from error


def to_png(image: Image.Image) -> bytes:
    """Return an RGB picture as PNG bytes: the pixels and nothing else."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def _open(file: BinaryIO) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    head = file.read(32)
    file.seek(0)
    try:
        return Image.open(file, formats=(*FORMATS, *_modern_formats(head)))
    except UnidentifiedImageError as error:
        if is_modern(head):
            raise NotUsable("damaged or truncated (HEIC or AVIF)") from error
        raise NotUsable("not a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF, or its beginning is damaged") from error
    except Image.DecompressionBombError as error:
        raise NotUsable(f"claims more than the {MAX_PIXELS // 1_000_000} megapixels allowed") from error


def is_modern(head: bytes) -> bool:
    """Return whether a file that begins with `head` (32 bytes) is HEIC or AVIF; a film is not."""
    return head[4:8] == b"ftyp" and any(brand in head[8:] for brand in (*_HEIC_BRANDS, *_AVIF_BRANDS))


def _modern_formats(head: bytes) -> tuple[str, ...]:
    """The formats to be tried beside the usual ones. Raises NeedsPackage where no package here reads them."""
    if not is_modern(head):
        return ()
    # AVIF may list mif1 among its brands, HEIC never lists avif.
    if any(brand in head[8:] for brand in _AVIF_BRANDS):
        from PIL import features

        if not features.check("avif"):
            raise NeedsPackage(f"AVIF needs a Pillow that reads it: {installing('--upgrade', 'pillow')}", "pillow")
        return ("AVIF",)
    if find_spec("pillow_heif") is None:
        raise NeedsPackage(f"HEIC needs one more package: {installing('pillow-heif')}", "pillow-heif")
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _prepared(opened: Image.Image) -> tuple[Image.Image, list[str]]:
    from PIL import ImageOps

    notes: list[str] = []
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise NotUsable(f"{width} x {height} pixels, more than the {MAX_PIXELS // 1_000_000} megapixels allowed")
    if min(width, height) < MIN_SIDE_PX:
        raise NotUsable(f"{width} x {height} pixels; both sides need at least {MIN_SIDE_PX}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise NotUsable(f"{width} x {height} pixels, longer than {MAX_ASPECT} times its width")
    if getattr(opened, "is_animated", False) and opened.format != "MPO":
        # An MPO is a JPEG with a second view, as many phones write it.
        frames = "several pages" if opened.format == "TIFF" else "animated, several frames"
        notes.append(f"{frames}; the first was taken")
    # JPEG can be decoded at a half, a quarter or an eighth: far less memory for a large photo.
    scale = 2 * KEEP_SHORT_SIDE_PX / min(width, height)
    if opened.format in ("JPEG", "MPO") and scale < 1:
        opened.draft(None, (round(width * scale), round(height * scale)))
    opened.load()
    orientation, profile = _orientation(opened, notes), opened.info.get("icc_profile")
    image = _flattened(_reduced(_eight_bit_strips(opened)), profile, notes)
    if min(width, height) > KEEP_SHORT_SIDE_PX:
        notes.append(f"reduced from {width} x {height} to {image.width} x {image.height} pixels")
    if 2 <= orientation <= 8:
        image.getexif()[_ORIENTATION] = orientation
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright")
    return _bare(image), notes


def _eight_bit_strips(image: Image.Image) -> Image.Image:
    """Return the picture in one of L, RGB, RGBA, CMYK; a huge one shrunk by a whole factor on the way."""
    from PIL import Image as PillowImage

    factor = max(1, min(image.size) // (2 * KEEP_SHORT_SIDE_PX))
    rows = max(1, _STRIP_PIXELS // (image.width * factor)) * factor
    size = (-(-image.width // factor), -(-image.height // factor))
    result: Image.Image | None = None
    for top in range(0, image.height, rows):
        strip = _eight_bit(image.crop((0, top, image.width, min(top + rows, image.height))))
        strip = strip.reduce(factor) if factor > 1 else strip
        result = result or PillowImage.new(strip.mode, size)
        result.paste(strip, (0, top // factor))
    assert result is not None
    return result


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        # 65535 / 257 = 255: the brightest stays the brightest.
        return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if image.mode == "F":
        raise NotUsable("floating-point pixels, which have no defined white level; save it as 8 or 16 bit")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _reduced(image: Image.Image) -> Image.Image:
    from PIL import Image as PillowImage

    short = min(image.size)
    if short <= KEEP_SHORT_SIDE_PX:
        return image
    width, height = (max(1, round(side * KEEP_SHORT_SIDE_PX / short)) for side in image.size)
    return image.resize((width, height), PillowImage.Resampling.LANCZOS)


def _flattened(image: Image.Image, profile: Any, notes: list[str]) -> Image.Image:
    from PIL import Image as PillowImage

    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha else image
    colours = _in_srgb(colours, profile, notes).convert("RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return colours
    notes.append("transparent parts became white")
    return PillowImage.composite(colours, PillowImage.new("RGB", image.size, "white"), alpha)


def _in_srgb(image: Image.Image, profile: Any, notes: list[str]) -> Image.Image:
    """Convert L, RGB or CMYK by its ICC profile; without a fitting profile the picture stays as it is."""
    if not isinstance(profile, bytes) or not profile:
        return image
    from PIL import ImageCms

    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = given.profile.xcolor_space.strip()
        if space != {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}.get(image.mode):
            return image
        name = ImageCms.getProfileDescription(given).strip()
        if re.search(r"srgb", name, re.IGNORECASE):
            return image
        converted = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, AttributeError):
        notes.append("its colour profile is damaged and was ignored")
        return image
    if converted is None:
        return image
    notes.append(f"colours converted to sRGB from {printable(name, 40)}")
    return converted


def _orientation(loaded: Image.Image, notes: list[str]) -> int:
    # Asked for after loading: the TIFF and HEIF readers turn the picture themselves and then say 1.
    try:
        value = loaded.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # EXIF of strangers breaks in every way; the picture itself is sound
        notes.append("its EXIF is damaged and was ignored")
        return 1


def _bare(image: Image.Image) -> Image.Image:
    """Return the pixels alone: a new picture carries no EXIF, comment or profile."""
    from PIL import Image as PillowImage

    clean = PillowImage.new("RGB", image.size)
    clean.paste(image)
    return clean


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    shown = printable(text or type(error).__name__, 100)
    if any(sign in text.lower() for sign in ("truncated", "broken data stream", "unexpected end")):
        return f"damaged or truncated ({shown})"
    return f"cannot be decoded ({shown})"
