"""What the machine does to a command, told in a sentence with its exit code."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from torch._inductor.exc import CppCompileError

from dbcli.cli.faults import bug, machine_fault, usage_fault


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's own."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "permission to write or read /x"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "permission to write or read /x"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x/y"), "/x/y: Not a directory"),
        (MemoryError(), "Out of memory"),
        (OutOfMemoryError("CUDA out of memory"), "Out of memory"),
        (RuntimeError("CUDA error: out of memory"), "Out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "Out of memory"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            "Out of memory",
        ),
        (RuntimeError("NCCL Error 1: unhandled cuda error 'out of memory'"), "Out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"), "Out of memory"),
        (RuntimeError("CUDA error: unspecified launch failure\nmore"), "GPU failed: CUDA error: unspecified"),
    ],
)
def test_what_the_machine_could_not_do_is_exit_5(error: BaseException, said: str) -> None:
    fault = machine_fault(error)
    assert fault is not None
    assert fault[0] == 5
    assert said in fault[1]


def test_what_a_compiler_says_is_told_with_the_way_around_it() -> None:
    # What torch raises where g++ is there and finds no headers of Python.
    found = "/tmp/x/header.h:3:10: fatal error: Python.h: No such file or directory\ncompilation terminated."
    fault = machine_fault(CppCompileError(["g++", "x.cpp", "-o", "x.so"], found))
    assert fault is not None and fault[0] == 5
    assert "Compiling failed: /tmp/x/header.h:3:10: fatal error: Python.h: No such file" in fault[1]
    assert "train.compile=false" in str(fault[2]) and "--no-compile" in str(fault[2])


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("x"), OSError("no number")])
def test_anything_else_is_a_bug(error: BaseException) -> None:
    assert machine_fault(error) is None
    assert usage_fault(error) is None


def test_a_bug_keeps_its_traceback_even_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    try:
        raise ZeroDivisionError("planted")
    except ZeroDivisionError as error:
        code, message, hint = bug(error)
    assert (code, hint is not None) == (1, True)
    assert "planted" in message
    assert "Traceback" in next(tmp_path.glob("crash-*.log")).read_text()
