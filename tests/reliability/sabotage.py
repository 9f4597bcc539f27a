"""What goes wrong inside a process on purpose. Each function is called in the forked child before its command."""

from __future__ import annotations

import builtins
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 137


def no_network() -> None:
    """Any connection but one to this machine's own sockets ends the process with a code no command uses."""

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            os.write(2, f"NETWORK {address}\n".encode())
            os._exit(99)

    socket.socket.connect = refuse  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = refuse  # type: ignore[method-assign,assignment]


def die_in(function: str, step: int | None = None, at: int = 0, half: bool = False, counted: str = "") -> None:
    """Dies at the `at`-th file operation inside a function, before it is done or with its file half written.

    With `at` 0 nobody dies: the number of operations is written to the file `counted`. `step` chooses the call of
    save_checkpoint.
    """
    boundary = _Boundary(at, half)
    boundary.watch()
    module_name, _, name = function.rpartition(".")
    module = __import__(module_name, fromlist=[name])
    original = getattr(module, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        boundary.inside = step is None or step in arguments
        try:
            return original(*arguments, **options)
        finally:
            if counted and boundary.inside:
                boundary.inside = False
                Path(counted).write_text(str(boundary.count))
            boundary.inside = False

    _put_in_place_of(original, watched)


def _put_in_place_of(original: Any, other: Any) -> None:
    """Every module that has a function by its own name gets the other one."""
    for module in [one for name, one in sys.modules.items() if name.startswith("dbcli.")]:
        for name in [name for name, value in vars(module).items() if value is original]:
            setattr(module, name, other)


class _Boundary:
    """Counts the operations by which something reaches the disk."""

    def __init__(self, at: int, half: bool) -> None:
        self.at, self.half = at, half
        self.inside = False
        self.count = 0

    def passed(self, tear: Callable[[], None] = lambda: None) -> None:
        if not self.inside:
            return
        self.count += 1
        if self.count == self.at:
            self.inside = False
            if self.half:
                tear()
            os._exit(KILLED)

    def watch(self) -> None:
        for name in ("replace", "rename", "mkdir", "unlink", "rmdir"):
            self._watch_plain(name)
        self._watch_fsync()
        self._watch_write()
        self._watch_open()
        self._watch_tensors()

    def _watch_plain(self, name: str) -> None:
        original = getattr(os, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            self.passed()
            return original(*arguments, **options)

        setattr(os, name, watched)

    def _watch_fsync(self) -> None:
        original = os.fsync

        def watched(descriptor: int) -> None:
            # Without the fsync, half of what was written may be all that a lost machine finds again.
            self.passed(lambda: _cut(f"/proc/self/fd/{descriptor}"))
            original(descriptor)

        os.fsync = watched

    def _watch_write(self) -> None:
        original = os.write

        def watched(descriptor: int, data: bytes) -> int:
            self.passed(lambda: original(descriptor, data[: len(data) // 2]) and None)
            return original(descriptor, data)

        os.write = watched

    def _watch_open(self) -> None:
        original = io.open

        def watched(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wxa+"):
                self.passed()
            return original(file, mode, *arguments, **options)

        io.open = watched
        builtins.open = watched

    def _watch_tensors(self) -> None:
        import safetensors.torch

        original = safetensors.torch.save_file

        def watched(tensors: Any, filename: Any, metadata: Any = None) -> None:
            def tear() -> None:
                original(tensors, filename, metadata)
                _cut(str(filename))

            self.passed(tear)
            original(tensors, filename, metadata)

        safetensors.torch.save_file = watched


def _cut(path: str) -> None:
    if os.path.isfile(path):
        os.truncate(os.path.realpath(path), os.path.getsize(path) // 2)


def nan_at(step: int, weights: bool = False, only_at_full_rate: bool = False) -> None:
    """The loss of a step (from 1), or a weight after it, is no number; always, or only at the full rate."""
    from dataclasses import replace

    import torch

    from dbcli.diffusion.training.trainer import Trainer

    loss, take_step = Trainer.loss, Trainer.step

    def spoilt_loss(self: Any, micro_step: int) -> Any:
        part = loss(self, micro_step)
        spoil = self.done + 1 == step and not weights and (self.rate_scale == 1 or not only_at_full_rate)
        return replace(part, total=part.total * float("nan")) if spoil else part

    def spoilt_step(self: Any) -> Any:
        result = take_step(self)
        if weights and self.done == step and (self.rate_scale == 1 or not only_at_full_rate):
            with torch.no_grad():
                self.parameters[0].view(-1)[0] = float("inf")
        return result

    Trainer.loss, Trainer.step = spoilt_loss, spoilt_step  # type: ignore[method-assign]


def fail_at_step(step: int, error: str, **recipe: Any) -> None:
    """A step ends as on a machine whose GPU or memory is gone; always, or only while a recipe is this one.

    `recipe` takes method, recomputing, fused and packed (whether the frozen base is kept in fewer bits).
    """
    from dbcli.diffusion.bases.quantized import SmallConvolution
    from dbcli.diffusion.training.trainer import Trainer

    take_step = Trainer.step

    def failing(self: Any) -> Any:
        found = {
            "method": self.trainable.method,
            "recomputing": self.denoiser.network.is_gradient_checkpointing,
            "fused": self.optimisation.fused_backward,
            "packed": any(isinstance(one, SmallConvolution) for one in self.denoiser.network.modules()),
        }
        if self.done + 1 == step and recipe.items() <= found.items():
            raise MemoryError if error == "memory" else RuntimeError("CUDA error: device lost")
        return take_step(self)

    Trainer.step = failing  # type: ignore[method-assign]


def limit_memory(megabytes: int, before_step: int | None = None) -> None:
    """The kernel gives this process so much more memory and no byte beyond; from now on, or from a step on.

    From a step on means once: a smaller recipe has to live with what the first one left.
    """
    import resource

    from dbcli.diffusion.training.trainer import Trainer

    def limit() -> None:
        status = Path("/proc/self/status").read_text()
        taken = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
        most = taken + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    if before_step is None:
        limit()
        return
    take_step = Trainer.step

    def limiting(self: Any) -> Any:
        if self.done + 1 == before_step:
            Trainer.step = take_step  # type: ignore[method-assign]
            limit()
        return take_step(self)

    Trainer.step = limiting  # type: ignore[method-assign]


def stop_after(step: int) -> None:
    """The process sends itself SIGTERM when a step is recorded: a person who stops exactly there."""
    import signal

    from dbcli.project.runs.run_store import append_event

    def watched(layout: Any, run: str, event: Any) -> None:
        append_event(layout, run, event)
        if event.get("step") == step and "loss" in event:
            os.kill(os.getpid(), signal.SIGTERM)

    _put_in_place_of(append_event, watched)


def stop_twice(step: int) -> None:
    """Two signals, one after the other, while a checkpoint is being written."""
    import signal

    from dbcli.workflows.training import checkpoints as run_checkpoints

    save = run_checkpoints.save_checkpoint

    def watched(layout: Any, run: str, at: int, write: Any, **options: Any) -> Any:
        def writing(folder: Path) -> None:
            write(folder)
            if at >= step:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)

        return save(layout, run, at, writing, **options)

    run_checkpoints.save_checkpoint = watched


def stop_in(phase: str) -> None:
    """The process sends itself SIGINT in the middle of a phase before training."""
    import signal

    from dbcli.diffusion import images
    from dbcli.diffusion.sampling import sample as drawing

    room, name = (drawing, "decode") if phase == "class images" else (images, "encode")
    original = getattr(room, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        setattr(room, name, original)
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **options)

    setattr(room, name, watched)


def _wait_for(path: str) -> None:
    import time

    while not os.path.exists(path):
        time.sleep(0.01)


def hold_at_step(step: int, until: str) -> None:
    """The process waits before a step until a file is there.

    `until`.held is made when it waits, and `until`.heard when a request to stop comes meanwhile.
    """
    from dbcli.diffusion.training.trainer import Trainer

    take_step = Trainer.step

    def waiting(self: Any) -> Any:
        if self.done + 1 == step:
            Path(f"{until}.held").touch()
            while not Path(until).exists():
                time.sleep(0.01)
                if _has_heard():
                    Path(f"{until}.heard").touch()
        return take_step(self)

    Trainer.step = waiting  # type: ignore[method-assign]


def _has_heard() -> bool:
    """Whether the command was asked to stop: while it works its handler is a method of what keeps that."""
    stop = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return callable(stop) and bool(stop())


def count_drawn(path: str) -> None:
    """Every picture that is decoded adds a line to a file: the process that drew it."""
    from dbcli.diffusion.sampling import sample as drawing
    from dbcli.project.files.atomic import append_line

    decode = drawing.decode

    def counted(*arguments: Any) -> Any:
        append_line(Path(path), str(os.getpid()))
        return decode(*arguments)

    drawing.decode = counted


def hold_drawing(until: str) -> None:
    """The process waits before its first picture is decoded until a file is there."""
    from dbcli.diffusion.sampling import sample as drawing

    decode = drawing.decode

    def waiting(*arguments: Any) -> Any:
        _wait_for(until)
        return decode(*arguments)

    drawing.decode = waiting
