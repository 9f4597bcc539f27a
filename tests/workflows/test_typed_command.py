"""Commands in records can be typed again."""

from __future__ import annotations

from dbcli.workflows.typed_command import typed_command


def test_a_command_is_kept_as_it_can_be_pasted_inside_the_project() -> None:
    words = ["-C", "my proj", "sweep", "my rates.yaml", "--project=x", "--set", "train.steps=5"]
    assert typed_command(words) == "dreambooth sweep 'my rates.yaml' --set train.steps=5"
