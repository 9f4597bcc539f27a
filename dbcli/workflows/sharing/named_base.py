"""The base that a file of another program says it was made on, and the commands that take it there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dbcli.errors import OtherBase
from dbcli.hints import command
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.completions import BASES
from dbcli.workflows.sharing.imported_words import OWN_DESCRIPTIONS

# What ModelSpec's architecture and kohya's version of a base begin with -> the base that such files are for.
USUAL_BASES = (
    (("stable-diffusion-v1", "sd_v1"), "sd-v1-5"),
    (("stable-diffusion-xl", "sdxl"), "sdxl"),
    (("z-image", "zimage"), "zimage"),
)
# Where a file does not say it.
PLACEHOLDER = "BASE"


def for_another_base(
    message: str, metadata: Mapping[str, str], layout: Layout, importing: str, file: Path
) -> OtherBase:
    """The error of a file that does not fit the project's base: with the base that it names, and what to type.

    A project keeps its base, so that the file needs another project; `importing` is the command that takes it there.
    """
    name, kind = _named(metadata), _architecture(metadata)
    said = f"{printable(name)} ({printable(kind)})" if name and kind else printable(name or kind)
    base = _typed(name, kind, load_settings(layout).base)
    whose = f"It says that it was made on {said}." if said else "It does not say on which base it was made."
    return OtherBase(
        f"{message} {whose}",
        hint=f"{command('dreambooth', 'init', 'NEW', '--base', base)}; "
        f"{command('dreambooth', '-C', 'NEW', importing, file)}",
    )


def _named(metadata: Mapping[str, str]) -> str:
    """The base by its name: kohya's, or in the descriptions of this program's exports; "" where there is none."""
    name = metadata.get("ss_sd_model_name", "").strip()
    text = metadata.get("modelspec.description", "")
    start = next((one for one in OWN_DESCRIPTIONS if text.startswith(one)), None)
    own = "" if start is None else text.removeprefix(start).partition(":")[0].strip()
    return own if name in ("", "None") else name


def _architecture(metadata: Mapping[str, str]) -> str:
    """The kind of base: "stable-diffusion-v1"; ModelSpec says behind a slash what the file adds to it."""
    found = metadata.get("modelspec.architecture", "").partition("/")[0] or metadata.get("ss_base_model_version", "")
    return found.strip()


def _typed(name: str, kind: str, own: str) -> str:
    """What to give to `init --base`; never the project's own base, which the file does not fit."""
    usual = next((base for starts, base in USUAL_BASES if kind.lower().startswith(starts)), PLACEHOLDER)
    found = name if name in BASES else usual
    return PLACEHOLDER if found == own else found
