"""The UNet compiled: fused kernels for the price of a minute or more before the first step."""

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from typing import Any

from dbcli.diffusion.lean_imports import settle_compiler
from dbcli.errors import MachineError
from dbcli.hints import WITHOUT_COMPILING, installing

COMPILERS = ("c++", "g++", "clang++")


def compile_unet(unet: Any) -> None:
    """Has a UNet compiled at its next pass; once is enough. Its weights, names and results stay.

    Adapters must be there already. Raises MachineError where this machine cannot compile.
    """
    if unet._compiled_call_impl is not None:
        return
    device = next(unet.parameters()).device
    if device.type == "cpu":
        _require_compiler()
    if device.type == "cuda" and find_spec("triton") is None:
        raise MachineError(
            "Compiling for a GPU needs the package triton.",
            hint=f"{installing('triton')}, or {WITHOUT_COMPILING}",
        )
    settle_compiler()
    unet.compile()


def _require_compiler() -> None:
    """Raises MachineError where the one C++ compiler that torch would call is not there: CXX, or the usual one."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    named = os.environ.get("CXX")
    words = shlex.split(usual if named is None else named)
    if words and shutil.which(words[0]):
        return
    if named is not None:
        raise MachineError(
            f"Compiling for a CPU needs a C++ compiler, and CXX names {named!r}, which is none.",
            hint=f"unset CXX, or {WITHOUT_COMPILING}",
        )
    other = next(filter(shutil.which, COMPILERS), None)
    if other is not None:
        raise MachineError(
            f"Compiling for a CPU needs the C++ compiler {usual}, or another one that CXX names.",
            hint=f"CXX={other} dreambooth …, or {WITHOUT_COMPILING}",
        )
    raise MachineError(
        "Compiling for a CPU needs a C++ compiler, but none is installed.",
        hint=f"apt install g++, or {WITHOUT_COMPILING}",
    )
