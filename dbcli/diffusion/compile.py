"""The UNet compiled: fused kernels for the price of a minute or more before the first step."""

import os
import shutil
from importlib.util import find_spec
from typing import Any

from dbcli.diffusion.lean_imports import settle_compiler
from dbcli.errors import MachineError
from dbcli.hints import installing

COMPILERS = ("c++", "g++", "clang++")
WITHOUT = "go without: --no-compile to generate, --set train.compile=false to train"


def compile_unet(unet: Any) -> None:
    """Has a UNet compiled at its next pass; once is enough. Its weights, names and results stay.

    Adapters must be there already. Raises MachineError where this machine cannot compile.
    """
    if unet._compiled_call_impl is not None:
        return
    device = next(unet.parameters()).device
    if device.type == "cpu" and not any(map(shutil.which, [os.environ.get("CXX", ""), *COMPILERS])):
        raise MachineError(
            "Compiling for a CPU needs a C++ compiler, but none is installed.",
            hint=f"apt install g++, or {WITHOUT}",
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise MachineError(
            "Compiling for a GPU needs the package triton.",
            hint=f"{installing('triton')}, or {WITHOUT}",
        )
    settle_compiler()
    unet.compile()
