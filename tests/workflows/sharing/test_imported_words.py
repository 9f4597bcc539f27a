"""Which words a LoRA file says it answers to."""

from __future__ import annotations

import json

import pytest

from dbcli.workflows.sharing.imported_words import Trigger, words_of_file


@pytest.mark.parametrize(
    ("metadata", "triggers"),
    [
        ({"modelspec.trigger_phrase": "sks dog"}, [Trigger("sks", "dog")]),
        ({"modelspec.trigger_phrase": "sks dog, zwx cat"}, [Trigger("sks", "dog")]),
        ({"ss_tag_frequency": json.dumps({"40_zwx toy robot": {"zwx toy robot": 4}})}, [Trigger("zwx", "toy robot")]),
        (
            {"modelspec.trigger_phrase": "sks dog, zwx cat", "modelspec.description": "DreamBooth on tiny: sks dog, …"},
            [Trigger("sks", "dog"), Trigger("zwx", "cat")],
        ),
        (
            {
                "ss_tag_frequency": json.dumps({"9_sks dog": {}, "9_zwx cat": {}, "1_a cat": {}, "3_sks dog b": {}}),
                "ss_reg_dataset_dirs": json.dumps({"1_a cat": {}}),
            },
            [Trigger("sks", "dog"), Trigger("zwx", "cat")],
        ),
        (
            {
                "dreambooth.subjects": json.dumps(
                    [
                        {"name": "rex", "word": "sks", "class": "dog"},
                        3,
                        {"word": "b"},
                        {"name": "no name", "word": "zwx", "class": "cat"},
                    ]
                ),
                "modelspec.trigger_phrase": "other thing",
            },
            [Trigger("sks", "dog", "rex"), Trigger("zwx", "cat")],
        ),
        ({"dreambooth.subjects": "[" * 100_000}, []),
        ({"ss_dataset_dirs": json.dumps({"1_dog": {}, "10_sks dog": {}})}, [Trigger("sks", "dog")]),
        ({"ss_tag_frequency": "[" * 100_000}, []),
        ({"ss_tag_frequency": "null", "modelspec.trigger_phrase": "style"}, []),
        ({"modelspec.trigger_phrase": "<|endoftext|> dog"}, []),
        ({}, []),
    ],
)
def test_words_come_from_the_files_metadata(metadata: dict[str, str], triggers: list[Trigger]) -> None:
    assert words_of_file(metadata) == triggers
