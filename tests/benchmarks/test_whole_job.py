"""The whole job in pairs: what is added up, what the script is asked, and one pair that is really run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dbcli.diffusion.bases.folder import embedded_folder

# Stands for diffusers' script: writes down what it was asked; its result is the base as it is.
SCRIPT = """
import json, pathlib, shutil, sys
words = sys.argv[1:-1]
options = dict(zip(words[::2], words[1::2]))
out = pathlib.Path(options["--output_dir"])
assert not out.exists(), "the result before was not removed"
shutil.copytree(options["--pretrained_model_name_or_path"], out)
pathlib.Path(__file__).with_name("asked.json").write_text(json.dumps([sys.argv[-1], options]))
"""


@pytest.fixture(scope="module")
def whole_job(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("whole_job")


def test_seconds_of_two_processes_add_up_and_their_memory_does_not(whole_job: ModuleType) -> None:
    parts = whole_job.Timing(20.0, 35.0, 900), whole_job.Timing(5.0, 6.0, 1200)
    assert whole_job.together(*parts) == whole_job.Timing(25.0, 41.0, 1200)


def test_a_row_has_the_median_and_both_ends(whole_job: ModuleType) -> None:
    rows = [{"ours s": seconds, "theirs/ours": ratio} for seconds, ratio in ((9.0, 1.5), (11.0, 2.25), (10.0, 2.0))]
    assert whole_job.line(rows) == "| 10.00 (9.00 to 11.00) | 2.00 (1.50 to 2.25) |"


@pytest.mark.slow
@pytest.mark.parametrize("as_shipped", [True, False])
def test_a_pair(whole_job: ModuleType, tmp_path: Path, as_shipped: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    few = ["prior.images=2", "images.scene_cutouts=0", "prior.teacher_draws=1", "probe.judge=off"]
    asked = argparse.Namespace(
        script=script, method="full", steps=1, as_shipped=as_shipped, set=few, subject="patch", pairs=1
    )
    (row,) = whole_job.measure(asked, tmp_path)
    assert row["ours s"] > 0 and row["theirs s"] > 0
    assert row["theirs/ours"] == row["theirs s"] / row["ours s"]
    flag, options = json.loads((tmp_path / "asked.json").read_text())
    assert flag == "--with_prior_preservation"
    assert options["--pretrained_model_name_or_path"] == str(embedded_folder())
    assert (options["--max_train_steps"], options["--train_batch_size"], options["--resolution"]) == ("1", "4", "128")
    assert len(list((tmp_path / "theirs" / "photos").iterdir())) == 5
    assert len(list((tmp_path / "theirs" / "images").glob("*.png"))) == 8
    assert not list((tmp_path / "ours" / "runs").glob("*-dog"))
