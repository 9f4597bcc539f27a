"""Commands for hints, written so that they work when pasted: words quoted, packages installed where this program is."""

import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

# What is said beside a model that cannot be a base.
ONLY_BASES = (
    "Only text-to-image models of Stable Diffusion 1.x, 2.x and XL can be a base, and folders of Z-Image; "
    "by name: --base sd-v1-4, sdxl, zimage or tiny."
)
# What is said where the UNet cannot be compiled.
WITHOUT_COMPILING = "go without: --no-compile to generate, --set train.compile=false to train, also with --resume"
# A command on a project, as it begins in a sentence; not one that makes or needs none.
_COMMAND = re.compile(r"\bdreambooth (?=[a-z])(?!init\b|demo\b|doctor\b|alone\b)")


def quoted(word: str | os.PathLike[str]) -> str:
    """One word of a command line for this machine's shell: quoted where it holds a space, `&`, a quote or the like."""
    text = os.fspath(word)
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)


def quoted_prompt(text: str) -> str:
    """A prompt as one word of a command line, in double quotes where they are enough: for every shell."""
    plain = not any(character in text for character in '"$`\\!%\n')
    return f'"{text}"' if plain else quoted(text)


def command(*words: str | os.PathLike[str]) -> str:
    """A whole command line, every word quoted where it has to be."""
    return " ".join(quoted(word) for word in words)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name that was most likely meant, case aside; None where none is near."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), list(by_folded), n=1)
    return by_folded[near[0]] if near else None


def inside(folder: Path, then: str) -> str:
    """A command to be typed in `folder`: with `cd` before it, unless that is the current folder."""
    try:
        is_here = folder.expanduser().resolve() == Path.cwd()
    except OSError:
        is_here = False
    return then if is_here else f"cd {quoted(folder)}; {then}"


def elsewhere(project: Path | None) -> Path | None:
    """The project that was named, where a command typed in the current folder would not find it by itself."""
    if project is None:
        return None
    target, here = project.expanduser().resolve(), Path.cwd().resolve()
    return None if here == target or target in here.parents else project


def for_project(text: str, project: Path | None) -> str:
    """A hint whose commands name the project, for it was named by -C and they are typed where it is not found.

    What goes into a folder first is typed in that one.
    """
    if project is None or text.startswith("cd "):
        return text
    named = f"dreambooth -C {quoted(project)} "
    return _COMMAND.sub(lambda found: named, text)


def installing(*packages: str) -> str:
    """The command that installs packages beside this program, however the program itself was installed."""
    names: Sequence[str] = [quoted(package) for package in packages]
    python = Path(sys.executable)
    if "pipx" in Path(sys.prefix).parts:
        return " ".join(["pipx inject dreambooth-cli", *names])
    if find_spec("pip") is None:
        return " ".join(["uv pip install --python", quoted(python), *names])
    pip = shutil.which("pip")
    # Another Python's pip would install the package where this program does not look.
    if pip is not None and Path(pip).parent == python.parent:
        return " ".join(["pip install", *names])
    return " ".join([quoted(python), "-m pip install", *names])
