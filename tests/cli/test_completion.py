"""What the Tab key offers in a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from dbcli.cli import completion
from dbcli.cli.app import app

Run = Callable[..., Any]


def completed(words: str, folder: Path) -> list[str]:
    place = len(words.split()) - (not words.endswith(" "))
    environment = {**os.environ, "_DREAMBOOTH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('HEAVY', *[n for n in ('torch', 'numpy', 'PIL') if n in sys.modules]))\n"
        "from dbcli.cli.app import main; main([])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    lines = told.stdout.splitlines()
    assert lines[-1] == "HEAVY", told.stdout + told.stderr
    return [line for line in lines[:-1] if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dreambooth train --subject ", ["dog"]),
        ("dreambooth generate --run ", ["0001-dog"]),
        ("dreambooth runs show 0", ["0001-dog"]),
        ("dreambooth train --profile f", ["full"]),
        ("dreambooth init p --base sd-v1-", ["sd-v1-4", "sd-v1-5"]),
        ("dreambooth generate --sampler euler", ["euler", "euler-a"]),
        ("dreambooth eval --suite q", ["quick"]),
        ("dreambooth eval --judge t", ["tiny"]),
        ("dreambooth train --set prior.we", ["prior.weight="]),
        ("dreambooth train --log-to w", ["wandb"]),
    ],
)
def test_the_shell_completes_names_without_loading_anything_heavy(
    trained_project: Path, words: str, offered: list[str]
) -> None:
    assert completed(words, trained_project) == offered


def test_the_project_may_be_named_behind_the_command(trained_project: Path, tmp_path: Path) -> None:
    for words in ("dreambooth -C {} train --subject ", "dreambooth train -C {} --subject "):
        assert completed(words.format(trained_project), tmp_path) == ["dog"]


def test_every_choice_has_something_to_offer() -> None:
    context = typer.Context(typer.main.get_command(app))
    for offer in (
        completion.bases,
        completion.engines,
        completion.judges,
        completion.logs,
        completion.methods,
        completion.profiles,
        completion.samplers,
        completion.suites,
        completion.sweeps,
    ):
        assert offer(context, "")
        assert offer(context, "no such name") == []


def test_every_choice_of_a_project_is_its_own(trained_project: Path) -> None:
    context = typer.Context(typer.main.get_command(app))
    context.params = {"project": trained_project}
    assert completion.subjects(context, "") == ["dog"]
    assert completion.runs(context, "") == ["0001-dog"]
    # One for each sentence that photos are taught with.
    assert len(completion.class_image_sets(context, "dog")) == 2


def test_outside_a_project_completion_is_silent(tmp_path: Path) -> None:
    assert completed("dreambooth train --subject ", tmp_path) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_bash_is_one(run: Run) -> None:
    code = "from dbcli.cli.app import main; main(['--show-completion', 'bash'])"
    # Under make the shell around is sh, which has no completion: the shell is named instead of looked for.
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=named).stdout
    assert "_DREAMBOOTH_COMPLETE" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_completed_bases_are_those_that_exist() -> None:
    from dbcli.diffusion.bases.base import KNOWN_BASES
    from dbcli.metrics.judges.loading import JUDGE_SETS
    from dbcli.workflows.completions import BASES, JUDGES

    assert set(BASES) == {*KNOWN_BASES, "tiny", "tiny-xl", "tiny-flow"}
    assert set(JUDGES) == set(JUDGE_SETS)
    assert completion.bases(typer.Context(typer.main.get_command(app)), "t") == ["tiny", "tiny-xl", "tiny-flow"]
