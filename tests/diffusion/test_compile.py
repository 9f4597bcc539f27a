"""A compiled UNet predicts the same, and a machine that cannot compile says so."""

from __future__ import annotations

import copy
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dbcli.diffusion.compile import COMPILERS, compile_unet
from dbcli.errors import MachineError
from tests.diffusion.small_trainers import apart, lora, plain_lora, run, small_unet, trainer_for

needs_a_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="compiling for a processor needs a C++ compiler"
)


@pytest.mark.slow
@needs_a_compiler
def test_a_compiled_unet_predicts_what_it_did_and_keeps_its_names() -> None:
    usual: Any = small_unet()
    compiled = copy.deepcopy(usual)
    compile_unet(compiled)
    compile_unet(compiled)
    assert compiled.state_dict().keys() == usual.state_dict().keys()
    draw = torch.Generator().manual_seed(0)
    latents, conditioning = torch.randn(1, 4, 8, 8, generator=draw), torch.randn(1, 8, 32, generator=draw)
    with torch.no_grad():
        ours, theirs = (unet(latents, torch.tensor([3]), conditioning).sample for unet in (compiled, usual))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_a_compiler
def test_adapters_learn_on_a_compiled_unet_as_on_the_usual_one() -> None:
    model = lora()
    compile_unet(model[0])
    assert apart(plain_lora(), run(trainer_for(model))) < 1e-4


def test_without_a_compiler_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MachineError, match="C\\+\\+ compiler") as caught:
        compile_unet(copy.deepcopy(small_unet()))
    assert "--no-compile" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("compiler", "named", "said", "way_out"),
    [
        ("clang++", None, "needs the C++ compiler g++, or another", "CXX=clang++"),
        ("g++", "no-such-compiler -O3", "CXX names 'no-such-compiler -O3'", "unset CXX"),
        ("g++", "", "CXX names ''", "unset CXX"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="the usual compiler is another one there")
def test_the_compiler_that_torch_would_call_is_the_one_that_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str, named: str | None, said: str, way_out: str
) -> None:
    (tmp_path / compiler).write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / compiler).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if named is not None:
        monkeypatch.setenv("CXX", named)
    with pytest.raises(MachineError, match=re.escape(said)) as caught:
        compile_unet(copy.deepcopy(small_unet()))
    assert way_out in str(caught.value.hint) and "--no-compile" in str(caught.value.hint)
