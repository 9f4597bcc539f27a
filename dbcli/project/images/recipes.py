"""The recipe inside a drawn PNG: an A1111 `parameters` chunk for other tools, and our own JSON, complete."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, ValidationError

from dbcli.errors import DataError
from dbcli.project.files.atomic import json_text, write_bytes
from dbcli.project.files.names import without_control_characters
from dbcli.project.files.records import Record, faults

if TYPE_CHECKING:
    from PIL import Image

PARAMETERS_KEY = "parameters"
RECIPE_KEY = "dreambooth"

# The names A1111 and its relatives show; any other sampler keeps ours.
SAMPLER_TITLES = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "dpm++": "DPM++ 2M",
    "dpm++-karras": "DPM++ 2M Karras",
    "dpm++-sde": "DPM++ SDE",
    "euler": "Euler",
    "euler-a": "Euler a",
    "heun": "Heun",
    "lms": "LMS",
    "pndm": "PLMS",
    "unipc": "UniPC",
}


class Recipe(Record):
    """Everything needed to draw one picture again. `index` is its place among the pictures of its prompt."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    prompt: str
    negative: str = ""
    sampler: str
    eta: float = 0.0
    steps: int
    guidance: float
    seed: int
    index: int = 0
    width: int
    height: int
    base_name: str
    base_hash: str | None = None
    run: str | None = None
    identifiers: dict[str, str] = Field(default_factory=dict, description="subject -> identifier")
    version: str = ""
    extras: dict[str, Any] = Field(default_factory=dict, description="what else the drawer wants to keep")

    def to_json(self) -> str:
        """Return the recipe as one JSON object, every text exactly as it was given."""
        return json_text(self.to_plain())

    def a1111_parameters(self) -> str:
        """Return the three lines that A1111, ComfyUI and gallery sites read.

        Line ends inside a prompt become spaces; `to_json` keeps the exact text.
        """
        lines = [_one_line(self.prompt)]
        if self.negative.strip():
            lines.append(f"Negative prompt: {_one_line(self.negative)}")
        lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in self._settings()))
        return "\n".join(lines)

    def text_chunks(self) -> dict[str, str]:
        """Return both PNG text chunks, keyword -> text."""
        return {PARAMETERS_KEY: self.a1111_parameters(), RECIPE_KEY: self.to_json()}

    def _settings(self) -> list[tuple[str, str]]:
        settings = [
            ("Steps", str(self.steps)),
            ("Sampler", SAMPLER_TITLES.get(self.sampler, self.sampler)),
            ("CFG scale", f"{self.guidance:g}"),
            ("Seed", str(self.seed)),
            ("Size", f"{self.width}x{self.height}"),
        ]
        if self.base_hash:
            settings.append(("Model hash", self.base_hash[:10]))
        settings.append(("Model", self.run or self.base_name))
        clip_skip = self.extras.get("clip_skip")
        if clip_skip is not None:
            settings.append(("Clip skip", str(clip_skip)))
        if self.eta:
            settings.append(("Eta", f"{self.eta:g}"))
        if self.version:
            settings.append(("Version", f"dreambooth {self.version}"))
        return settings


def save_png(path: Path, image: Image.Image, recipe: Recipe) -> None:
    """Write a picture with its recipe inside, in one step; nothing is there if it fails."""
    write_bytes(path, png_bytes(image, recipe))


def png_bytes(image: Image.Image, recipe: Recipe | None = None) -> bytes:
    """Return a picture as PNG bytes, with its recipe inside where one is given."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, text in (recipe.text_chunks() if recipe else {}).items():
        info.add_text(keyword, text)  # becomes iTXt, in UTF-8, where Latin-1 is not enough
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def read_recipe(png_path: Path) -> Recipe:
    """Return the recipe inside a PNG that this program drew.

    Raises DataError if the file cannot be read as a PNG, or holds no recipe or a damaged one.
    """
    text = read_text_chunks(png_path).get(RECIPE_KEY)
    if text is None:
        raise DataError(f"{png_path} holds no recipe; was it drawn by dreambooth and never edited?")
    try:
        return Recipe.model_validate(json.loads(text))
    except ValidationError as error:
        raise DataError(f"The recipe in {png_path} has faults:\n" + "\n".join(faults(error))) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"The recipe in {png_path} is damaged.") from error


def read_text_chunks(png_path: Path) -> dict[str, str]:
    """Return the text chunks of a PNG that come before its pixels; DataError if it is no PNG."""
    from PIL import Image

    try:
        with Image.open(png_path, formats=("PNG",)) as image:
            return {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
    except Exception as error:  # decoders raise whatever they like on broken files
        raise DataError(f"{png_path} cannot be read as a PNG.") from error


def _one_line(prompt: str) -> str:
    line = without_control_characters(prompt)
    # A line that begins like a field would be read as one. The space changes no token of the prompt.
    return re.sub(r"^(negative prompt|steps):", r"\1 :", line, flags=re.IGNORECASE)


def _quoted(value: str) -> str:
    value = without_control_characters(value)
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ',:"\n') else value
