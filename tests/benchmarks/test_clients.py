"""Exports read by the diffusers that is installed, in a process of its own, and a file that it misreads found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

Script = Callable[[str], ModuleType]
RECIPES = ("text, q and v", "differing ranks")


@pytest.fixture(scope="module")
def measured(script: Script, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[tuple[str, str], Any]]:
    """What diffusers makes of the short list, and of the same LoRA as it was learnt, written as it stands."""
    clients, work = script("clients"), tmp_path_factory.mktemp("clients")
    base, cases = clients.make_cases(work, "small", RECIPES)
    client = clients.Client("diffusers_reader", clients.sys.executable)
    found = clients.ask(client, work, base, [*cases, as_it_stands(clients, work, base, cases)], "small")
    return cases, {(name, precision): result for (_, name, precision), result in found.items()}


def as_it_stands(clients: ModuleType, work: Path, base: Any, cases: Any) -> Any:
    from dataclasses import replace

    from dbcli.diffusion.families.sd import SD
    from dbcli.diffusion.formats.lora_writing import write_kohya_lora

    files = clients.sys.modules["client_files"]
    lora = files.random_lora(files.make_model("small"), files.RECIPES["text, q and v"])
    write_kohya_lora(work / "plain.safetensors", lora, SD, dtype=torch.float32)
    like = next(case for case in cases if (case.name, case.precision) == ("kohya: text, q and v", "fp32"))
    return replace(like, name="as it stands", file=str(work / "plain.safetensors"))


def test_every_export_reads_as_this_program_reads_it(measured) -> None:
    cases, found = measured
    assert len(cases) == 4 + 2 * 4 + 4
    for case in cases:
        result = found[case.name, case.precision]
        assert "refused" not in result, result
        assert (result["difference"] <= 1e-5, result["missing"], result["differing"]) == (True, [], []), case.name


def test_a_file_that_is_not_read_is_told(measured, script: Script) -> None:
    _, found = measured
    result = found["as it stands", "fp32"]
    assert "refused" in result or result["differing"]
    assert script("clients").figure(result, 0.1) != "0"


def test_a_cell_says_the_difference_beside_the_change(script: Script) -> None:
    figure = script("clients").figure
    assert figure({"difference": 0.0, "missing": [], "differing": []}, 0.5) == "0"
    assert figure({"difference": 7e-9, "missing": [], "differing": []}, 0.5) == "7e-09"
    assert figure({"difference": 0.25, "missing": [], "differing": ["one", "two"]}, 0.5) == "**0.25** of 0.5, 2 tensors"
    assert figure({"refused": "ValueError: no"}, 0.5) == "refused"
    assert figure({"levels": 0, "change": 12, "missing": [], "differing": []}, 0.5) == "0 of 255 (change 12)"


def test_a_dora_is_told_by_what_it_was_taken_for(script: Script) -> None:
    figure = script("clients").figure
    result = {"difference": 0.25, "missing": [], "differing": ["one"], "readings": {"nothing": 0.1, "no lengths": 0.0}}
    assert figure(result, 0.5) == "**0.25** of 0.5, 1 tensors: no lengths"
    assert figure(result | {"readings": {"nothing": 0.1, "no lengths": 0.2}}, 0.5) == "**0.25** of 0.5, 1 tensors"


def test_readings_of_a_dora_by_hand(script: Script) -> None:
    """The sum is [[3, 4], [12, 5]]: rows of length 5 and 13, columns of √153 and √41, the base's rows 5 and 5."""
    from dbcli.diffusion.formats.lora import LoraLayer

    weight = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    layer = LoraLayer(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [12.0]]), 1.0, torch.tensor([10.0, 13.0]))
    tuned = script("client_files").tuned
    columns = (153**0.5, 41**0.5)
    for reading, expected in {
        "": [[6, 8], [12, 5]],
        "no lengths": [[3, 4], [12, 5]],
        "the lengths of the base alone": [[6, 8], [31.2, 13]],
        "lengths along the inputs": [[30 / columns[0], 40 / columns[1]], [156 / columns[0], 65 / columns[1]]],
    }.items():
        assert torch.allclose(tuned(weight, layer, reading), torch.tensor(expected, dtype=torch.float32)), reading
