"""Pairs judged by eye: agreement by hand, what may be paired, and the whole benchmark on a small project's images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from tests.cli.made_projects import command, trained_project


@pytest.fixture(scope="module")
def blind(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("blind_pairs")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run and a checkpoint of it, two images for each of two prompts; the second asks for another look."""
    folder = tmp_path_factory.mktemp("blind")
    probes = ("--set=images.held_out=1", "--set=probe.every=1", "--set=probe.judge=tiny", "--set=probe.keep=last")
    made = trained_project(folder, "--set=train.checkpoint_every=1", *probes)
    prompts = folder / "prompts.txt"
    prompts.write_text("a {identifier} {class} in the snow\na red {identifier} {class}\n", encoding="utf-8")
    asked = ("-C", made, "eval", "--judge", "tiny", "-n", 2, "--prompts", prompts, "--quiet")
    command(*asked)
    command(*asked, "--checkpoint", 1)
    return made


def test_a_measure_agrees_where_it_orders_a_pair_as_the_eye_did(blind: ModuleType) -> None:
    # A was preferred in 1 and 2, B in 3; the measure puts A above B in 1 alone, B above A in 2 and 3. The fourth pair
    # was not told apart, of the fifth nothing was said. 2 and 3 were plain.
    scores = [(0.5, 0.4), (0.1, 0.2), (0.3, 0.9), (0.0, 1.0), (1.0, 0.0)]
    found = blind.agreement("likeness", scores, {1: "A", 2: "A!", 3: "B!", 4: "="})
    assert (found.agreed, found.pairs) == (2, 3)
    assert (found.agreed_plain, found.plain) == (1, 2)


def test_a_tie_of_the_measure_does_not_agree(blind: ModuleType) -> None:
    assert blind.agreement("likeness", [(0.5, 0.5)], {1: "A"}).agreed == 0
    assert blind.agreement("likeness", [(0.5, 0.5)], {1: "B!"}).agreed_plain == 0


def test_pairs_are_of_one_subject_in_two_states_by_one_prompt_and_shared_fairly(blind: ModuleType) -> None:
    def pool(name: str, states: int) -> list:
        return [
            blind.Picture(f"{name}-{state}-{asked}-{number}.png", str(state), asked)
            for state in range(states)
            for asked in ("snow", "sand")
            for number in range(3)
        ]

    # the cat has one state, and the two of the cup share no prompt
    cup = [blind.Picture("cup-0.png", "0", "snow"), blind.Picture("cup-1.png", "1", "sand")]
    pools = {("dog",): pool("dog", 2), ("can",): pool("can", 4), ("cat",): pool("cat", 1), ("cup",): cup}
    pairs = blind.drawn_pairs(pools, 7, seed=3)
    assert [pair.photos[0] for pair in pairs] == ["dog"] * 4 + ["can"] * 3
    for pair in pairs:
        assert pair.a.state != pair.b.state
        assert pair.a.asked == pair.b.asked
        assert pair.a.file[:3] == pair.b.file[:3] == pair.photos[0]
    assert blind.drawn_pairs(pools, 7, seed=3) == pairs
    assert blind.drawn_pairs(pools, 7, seed=4) != pairs
    assert {pair.a.state for pair in blind.drawn_pairs(pools, 40, seed=3)} == {"0", "1", "2", "3"}


def test_without_two_states_of_a_subject_there_is_nothing_to_compare(blind: ModuleType) -> None:
    with pytest.raises(SystemExit, match="two runs or checkpoints"):
        blind.drawn_pairs({("dog",): [blind.Picture(f"{n}.png", "0", "snow") for n in range(3)]}, 2, seed=0)


def test_of_the_class_is_taken_off_what_the_state_drew_of_it(blind: ModuleType) -> None:
    # Photos (1, 0), A (.6, .8), B (.8, .6), and of the class A's state drew (0, 1), B's (.6, .8): alone .6 and .8,
    # beyond the class .6 - 0 and .8 - .6.
    rows = {"photo": (1.0, 0.0), "a": (0.6, 0.8), "b": (0.8, 0.6), "class-a": (0.0, 1.0), "class-b": (0.6, 0.8)}
    pair = blind.Pair(("photo",), blind.Picture("a", "first", "snow"), blind.Picture("b", "second", "snow"))
    alone, beyond = blind.likenesses(
        [pair],
        {"first": ["class-a"], "second": ["class-b"]},
        lambda files: torch.tensor([rows[file] for file in files], dtype=torch.float64),
    )
    assert alone == [pytest.approx((0.6, 0.8))]
    assert beyond == [pytest.approx((0.6, 0.2))]


def test_what_runs_recorded_is_held_against_pairs_of_which_both_have_it(blind: ModuleType) -> None:
    def pair(a: str, b: str) -> object:
        return blind.Pair(("photo",), blind.Picture("a", a, "snow"), blind.Picture("b", b, "snow"))

    # The loss is less in "late", which the eye prefers in 1 and, plainly, in 2, and not in 3; "other" has none.
    recorded = {"early": {"loss": -0.3}, "late": {"loss": -0.2}, "other": {}}
    pairs = [pair("early", "late"), pair("late", "early"), pair("early", "late"), pair("other", "late")]
    (found,) = blind.by_states(pairs, recorded, {1: "B", 2: "A!", 3: "A", 4: "B!"})
    assert (found.measure, found.agreed, found.pairs, found.agreed_plain, found.plain) == ("loss", 2, 3, 1, 1)


def test_answers_are_read_and_those_left_open_are_not(blind: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("1 a\n2 \n\n3 =\n4 b!\n", encoding="utf-8")
    assert blind.read_answers(file, 4) == {1: "A", 3: "=", 4: "B!"}


@pytest.mark.parametrize("line", ["5 A", "0 A", "1 C", "1 =!", "A", "1A"])
def test_a_line_that_is_no_answer_is_named(blind: ModuleType, tmp_path: Path, line: str) -> None:
    file = tmp_path / "answers.txt"
    file.write_text(f"1 A\n{line}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="line 2"):
        blind.read_answers(file, 4)


def test_a_projects_images_are_laid_out_and_scored(
    blind: ModuleType, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "pairs", tmp_path / "figures.json"
    blind.main(["lay", str(project), "--out", str(out), "--count", "4"])
    laid = json.loads((out / "pairs.json").read_text(encoding="utf-8"))
    # only the first prompt keeps the subject's look: two images by the run, two by its checkpoint
    files = {pair[side]["file"] for pair in laid["pairs"] for side in ("a", "b")}
    assert len(files) <= 4
    assert all("-step-" in pair["a"]["state"] + pair["b"]["state"] for pair in laid["pairs"])
    # both have drawn the same eight seeds of the class, each in its own folder
    names = [{Path(file).name for file in members} for members in laid["class_images"].values()]
    assert len(names) == 2 and len(names[0]) == len(names[1]) == 8
    assert not {file for members in laid["class_images"].values() for file in members} & files
    with Image.open(out / "sheet-01.png") as sheet:
        assert sheet.height > 2 * 240
    (out / "answers.txt").write_text("1 A\n2 B!\n3 =\n", encoding="utf-8")
    blind.main(["score", str(out), "--judge", "tiny-clip", "--json", str(figures)])
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert found["answers"] == {"A!": 0, "A": 1, "=": 1, "B": 0, "B!": 1}
    measures = [
        f"likeness {kind}, {judge}" for judge in ("tiny-dino", "tiny-clip") for kind in ("beyond the class", "alone")
    ]
    measures += ["held-out loss, less is better", "likeness of probes"]
    assert [(row["measure"], row["pairs"], row["plain"]) for row in found["rows"]] == [
        (measure, 2, 1) for measure in measures
    ]
    assert "agrees with the eye" in capsys.readouterr().out


def test_answers_that_were_given_are_not_overwritten(blind: ModuleType, project: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("1 A\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="is there already"):
        blind.main(["lay", str(project), "--out", str(tmp_path)])
    assert (tmp_path / "answers.txt").read_text(encoding="utf-8") == "1 A\n"
