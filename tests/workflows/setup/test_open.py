"""A project that stands on an earlier edition of the embedded base."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.errors import Refused
from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import load_settings, save_settings
from dbcli.workflows.progress import Silence
from dbcli.workflows.setup.open import EARLIER_EDITIONS, init_project, load_project_base
from dbcli.workflows.subjects.photo_review import RESOLUTIONS


def new_project(folder: Path) -> Layout:
    return Layout(init_project(folder, "tiny", None, offline=True).folder)


@pytest.mark.parametrize(
    ("base_hash", "told"),
    list(zip(EARLIER_EDITIONS, [r"\(64 px, release 0\.1\)", r"before the release of 0\.2"], strict=True)),
)
def test_a_project_of_an_earlier_edition_is_told_which_release_opens_it(
    tmp_path: Path, base_hash: str, told: str
) -> None:
    layout = new_project(tmp_path / "old")
    save_settings(layout, load_settings(layout).model_copy(update={"base_hash": base_hash}))
    with pytest.raises(Refused, match=told) as refused:
        load_project_base(layout, Silence(), offline=True)
    assert "dreambooth init NAME --base tiny" in str(refused.value.hint)
    assert load_settings(layout).base_hash == base_hash


def test_the_embedded_base_is_of_another_edition_and_of_the_size_photos_are_looked_at(tmp_path: Path) -> None:
    base = load_project_base(new_project(tmp_path / "new"), Silence(), offline=True)
    assert base.hash not in EARLIER_EDITIONS
    assert base.resolution == RESOLUTIONS["tiny"]
