"""A Hugging Face image folder's captions, and tables that strangers break."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import photo_makers


def folder_with(tmp_path: Path, table: str, content: str | bytes) -> Path:
    for number in range(3):
        photo_makers.save(tmp_path / "train" / f"{number}.png", photo_makers.plain((number * 40, 0, 0)))
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / table).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    ("table", "content"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "train/0.png", "text": "a dog"}\n\n{"file_name": "train/2.png", "text": "two\\nlines"}\n',
        ),
        ("metadata.csv", 'file_name,text\ntrain/0.png,a dog\ntrain/2.png,"two\nlines"\n'),
        ("metadata.csv", "\ufefffile_name,width,caption\ntrain/0.png,3,a dog\ntrain/2.png,3,two lines\n"),
    ],
)
def test_each_photo_gets_its_caption(tmp_path: Path, table: str, content: str) -> None:
    intake = photo_makers.Intake([folder_with(tmp_path, table, content)])
    assert intake.captions == ["a dog", None, "two lines"]
    assert intake.skipped == []


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85"])
def test_a_caption_in_json_may_hold_what_ends_a_line_elsewhere(tmp_path: Path, character: str) -> None:
    rows = f'{{"file_name": "train/0.png", "text": "a{character}dog"}}\n{{"file_name": "train/2.png", "text": "two"}}\n'
    for ends in ("\n", "\r\n", "\r"):
        intake = photo_makers.Intake([folder_with(tmp_path, "metadata.jsonl", rows.replace("\n", ends))])
        assert (intake.captions, intake.skipped) == (["a dog", None, "two"], [])


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_a_caption_that_is_too_long_for_use_is_told_with_its_photo(tmp_path: Path, table: str) -> None:
    header, row = (
        ("file_name,text\n", "{},{}\n") if table.endswith("csv") else ("", '{{"file_name":"{}","text":"{}"}}\n')
    )
    rows = row.format("train/0.png", "dog " * 501) + row.format("train/1.png", "dog " * 500)
    intake = photo_makers.Intake([folder_with(tmp_path, table, header + rows)])
    assert intake.captions == [None, ("dog " * 500).strip(), None]
    assert [note for note in intake.notes if "caption" in note] == [
        f"0.png: the caption in {table} was left out: longer than 2,000 characters"
    ]


@pytest.mark.parametrize(
    ("table", "encoding"), [("metadata.csv", "utf-16"), ("Metadata.CSV", "utf-8"), ("metadata.JSONL", "utf-8-sig")]
)
def test_a_table_may_be_in_utf_16_and_its_name_in_capitals(tmp_path: Path, table: str, encoding: str) -> None:
    rows = "file_name,text\ntrain\\0.png,a söfa\n"
    if table.lower().endswith("jsonl"):
        rows = '{"file_name": "train/0.png", "text": "a söfa"}\n'
    intake = photo_makers.Intake([folder_with(tmp_path, table, rows.encode(encoding))])
    assert (intake.captions, intake.skipped) == (["a söfa", None, None], [])


def test_a_text_file_beside_a_photo_wins_over_the_table(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "metadata.jsonl", '{"file_name": "train/0.png", "text": "of the table"}')
    (tmp_path / "train" / "0.txt").write_text("of its own")
    assert photo_makers.Intake([folder]).captions == ["of its own", None, None]


@pytest.mark.parametrize(
    ("table", "content", "reason"),
    [
        ("metadata.jsonl", '{"file_name": "train/0.png"', "line 1 is not JSON"),
        ("metadata.jsonl", '{"image": "train/0.png", "text": "a"}', "no line has file_name"),
        ("metadata.csv", "file_name,label\ntrain/0.png,3\n", "one of text, caption, prompt"),
        ("metadata.csv", b"\xff\xfe\x00", "cannot be read"),
        ("metadata.jsonl", "[" * 100_000, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_and_the_photos_stay(
    tmp_path: Path, table: str, content: str | bytes, reason: str
) -> None:
    intake = photo_makers.Intake([folder_with(tmp_path, table, content)])
    assert len(intake.photos) == 3
    assert [reason in one.text and table in one.text for one in intake.refused] == [True]


def test_a_table_leads_to_no_file_outside_of_what_was_given(tmp_path: Path) -> None:
    photo_makers.save(tmp_path / "secret.png")
    folder = folder_with(tmp_path / "in", "metadata.jsonl", '{"file_name": "../secret.png", "text": "a"}')
    intake = photo_makers.Intake([folder])
    assert [photo.source.name for photo in intake.photos] == ["0.png", "1.png", "2.png"]
    assert intake.captions == [None, None, None]
