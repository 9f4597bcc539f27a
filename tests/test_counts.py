"""Numbers in words."""

from __future__ import annotations

from dbcli.counts import counted


def test_one_is_no_plural() -> None:
    assert [counted(count, "image") for count in (0, 1, 3)] == ["0 images", "1 image", "3 images"]
