"""Which words a LoRA file says it answers to."""

from __future__ import annotations

import json

import pytest

from dbcli.workflows.import_lora import Trigger, trigger_of


@pytest.mark.parametrize(
    ("metadata", "trigger"),
    [
        ({"modelspec.trigger_phrase": "sks dog"}, Trigger("sks", "dog")),
        ({"modelspec.trigger_phrase": "sks dog, zwx cat"}, Trigger("sks", "dog")),
        ({"ss_tag_frequency": json.dumps({"40_zwx toy robot": {"zwx toy robot": 4}})}, Trigger("zwx", "toy robot")),
        ({"ss_dataset_dirs": json.dumps({"1_dog": {}, "10_sks dog": {}})}, Trigger("sks", "dog")),
        ({"ss_tag_frequency": "[" * 100_000}, None),
        ({"ss_tag_frequency": "null", "modelspec.trigger_phrase": "style"}, None),
        ({"modelspec.trigger_phrase": "<|endoftext|> dog"}, None),
        ({}, None),
    ],
)
def test_words_come_from_the_files_metadata(metadata: dict[str, str], trigger: Trigger | None) -> None:
    assert trigger_of(metadata) == trigger
