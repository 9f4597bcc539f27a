"""Showing images in terminals that can: kitty's and iTerm2's protocols, else two pixels per character."""

import base64
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.color import Color
from rich.style import Style
from rich.text import Text

from dbcli.cli.terminal.screen import Screen

Ability = Literal["kitty", "iterm", "blocks", "none"]
COLUMNS_PER_IMAGE, MOST_IMAGES = 24, 4
# The kitty protocol takes at most this many letters of base64 at once.
_CHUNK = 4096


def ability(environment: Mapping[str, str], *, is_terminal: bool, colours: str | None) -> Ability:
    """What the terminal can show, by its environment: asking it would take keys that were typed ahead.

    colours is Rich's colour system.
    """
    if not is_terminal or colours is None:
        return "none"
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    # tmux and screen swallow image protocols; cells of colour pass through them.
    if not (environment.get("TMUX") or term.startswith(("tmux", "screen"))):
        if "kitty" in term or environment.get("KITTY_WINDOW_ID") or program == "ghostty":
            return "kitty"
        if program in ("iTerm.app", "WezTerm"):
            return "iterm"
    return "blocks" if colours in ("truecolor", "256") else "none"


def show_images(screen: Screen, files: Sequence[Path]) -> None:
    """The first images in a row, where the terminal can show any."""
    from dbcli.workflows.images.for_terminal import as_cells, as_png

    can = ability(os.environ, is_terminal=screen.out.is_terminal, colours=screen.out.color_system)
    if can == "none" or screen.as_json or not files:
        return
    some = files[: max(1, min(MOST_IMAGES, screen.out.width // COLUMNS_PER_IMAGE))]
    columns = min(screen.out.width - 1, COLUMNS_PER_IMAGE * len(some))
    if can == "blocks":
        for row in as_cells(some, columns):
            cells = [("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))) for upper, lower in row]
            screen.out.print(Text.assemble(*cells, no_wrap=True), soft_wrap=False)
        return
    png = as_png(some)
    sys.stdout.write(_kitty(png, columns) if can == "kitty" else _iterm(png, columns))
    sys.stdout.write("\n")
    sys.stdout.flush()


def _kitty(png: bytes, columns: int) -> str:
    """Transmit and show at once (a=T), PNG (f=100), scaled to so many columns; all but the last piece say m=1."""
    text = base64.b64encode(png).decode("ascii")
    pieces = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    heads = [f"a=T,f=100,c={columns},m=1", *["m=1"] * (len(pieces) - 1)]
    heads[-1] = heads[-1].replace("m=1", "m=0")
    return "".join(f"\x1b_G{head};{piece}\x1b\\" for head, piece in zip(heads, pieces, strict=True))


def _iterm(png: bytes, columns: int) -> str:
    text = base64.b64encode(png).decode("ascii")
    return f"\x1b]1337;File=inline=1;size={len(png)};width={columns};preserveAspectRatio=1:{text}\a"
