"""Imports the program once, then forks a process a command line: real processes, for the price of a fork.

Run as a script; it reads one JSON request a line and answers one line. It never runs a torch operation itself, so
that its children are forked without the threads of OpenMP.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import termios
import traceback
from typing import Any

import dbcli

# What the commands import of others on their way; what is missing here every child would import anew.
MODULES = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.optimization",
    "diffusers.schedulers.scheduling_ddim",
    "matplotlib.pyplot",
    "open_clip",
    "peft",
    "peft.utils",
    "safetensors.torch",
    "timm",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
)


def main() -> None:
    _import_everything()
    from tests.reliability import sabotage

    # Children leave what is imported alone: they neither go through it for garbage nor copy its pages.
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            print(json.dumps({"pid": _start(request, sabotage)}), flush=True)
        else:
            _, status = os.waitpid(request["pid"], 0)
            print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _import_everything() -> None:
    # With it the ladder of recipes has a rung more; its own tests import it by themselves.
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    for name in MODULES:
        importlib.import_module(name)
    for found in pkgutil.walk_packages(dbcli.__path__, "dbcli."):
        importlib.import_module(found.name)
    from PIL import Image

    Image.init()
    # peft asks for this table of 900 patterns in every process; it is kept once it is made.
    importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("clip")


def _start(request: dict[str, Any], sabotage: Any) -> int:
    # A signal that comes before the command can hear it waits, and then ends it as while its libraries are imported.
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return pid
    code = 1
    try:
        for number in signals:
            signal.signal(number, _end_at_once)
        _become(request)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        import torch

        torch.set_num_threads(1)
        for name, options in request["sabotage"].items():
            getattr(sabotage, name)(**options)
        from dbcli.cli.app import main as run

        run(request["words"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(request: dict[str, Any]) -> None:
    """Takes on a command's own folder, environment, arguments, and a terminal or files for its output."""
    os.chdir(request["folder"])
    sys.argv = ["dreambooth", *request["words"]]
    if "terminal" in request:
        os.environ.clear()
        os.environ.update(request["environment"])
        _sit_down_at(request["terminal"])
        return
    os.environ.update(request["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)


def _sit_down_at(terminal: str) -> None:
    """Makes a terminal this process's own, as a shell that was opened in it would."""
    os.setsid()
    file = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(file, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(file, number)
    # What was made for the server's pipes knows of no terminal, and holds what they still have to bring.
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _end_at_once(number: int, frame: object) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
