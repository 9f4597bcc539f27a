from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.errors import ConfigError, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.settings.project_settings import (
    ProjectSettings,
    load_settings,
    load_user_settings,
    save_settings,
    user_settings_file,
)

COMMIT = "133a221b8aa7292a167afc5127cb63fb5005638b"


def test_settings_come_back_as_they_were(layout: Layout) -> None:
    settings = ProjectSettings(
        base="sd-v1-4",
        revision=COMMIT,
        base_hash="ab" * 32,
        profile="lora",
        resolution=512,
        judges={"dino": "/models/dino"},
        overrides={"train": {"learning_rate": 5e-6}},
    )
    save_settings(layout, settings)
    assert load_settings(layout) == settings
    assert "schema: 1" in layout.settings_file.read_text()


def test_what_was_never_set_is_not_written(layout: Layout) -> None:
    assert layout.settings_file.read_text() == "schema: 1\nbase: tiny\n"


def test_every_fault_of_the_file_is_named_at_once(layout: Layout) -> None:
    layout.settings_file.write_text("base: 14\nrevision: main\nresolutoin: 512\nresolution: 100\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(layout)
    message = caught.value.message
    assert str(layout.settings_file) in message
    assert "base: should be text (found 14)" in message
    assert "revision: should be a commit of 40 hex digits" in message
    assert "resolutoin: is not a known key" in message
    assert "resolution: should be a multiple of 8 (found 100)" in message


def test_judges_of_other_names_are_refused_with_those_that_there_are(layout: Layout, tmp_path: Path) -> None:
    text = "judges: {captioner: wd14, xyz: /x, dino: /models/dino}\n"
    for path, load in (
        (layout.settings_file, lambda: load_settings(layout)),
        (tmp_path / "settings.yaml", lambda: load_user_settings(tmp_path / "settings.yaml")),
    ):
        path.write_text(text if path.name == "settings.yaml" else f"base: tiny\n{text}")
        with pytest.raises(ConfigError) as caught:
            load()
        known = "should be one of dino, clip, clip-l, tiny-dino, tiny-clip, face, mask, caption"
        assert caught.value.message.splitlines()[1:] == [
            f"  judges.captioner: {known}; did you mean caption? (found 'captioner')",
            f"  judges.xyz: {known} (found 'xyz')",
        ]


@pytest.mark.parametrize("text", ["train: {steps: 3}", "train.steps: 3"])
def test_settings_beside_the_others_are_told_where_they_stand(layout: Layout, text: str) -> None:
    layout.settings_file.write_text(f"base: tiny\nmethod: lora\nresolutoin: 512\n{text}\n")
    with pytest.raises(ConfigError, match="is not a known key") as caught:
        load_settings(layout)
    key = text.partition(":")[0]
    assert caught.value.hint == f"settings stand under overrides: move method, {key} there, two spaces in"
    with pytest.raises(ConfigError) as caught:
        mine = layout.root / "settings.yaml"
        mine.write_text(f"{text}\n")
        load_user_settings(mine)
    assert caught.value.hint == f"settings stand under overrides: move {key} there, two spaces in"


def test_an_unknown_key_that_is_no_setting_is_not_sent_under_overrides(layout: Layout) -> None:
    layout.settings_file.write_text("base: tiny\nresolutoin: 512\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(layout)
    assert caught.value.hint is None


def test_a_newer_schema_asks_for_a_newer_program(layout: Layout) -> None:
    layout.settings_file.write_text("schema: 2\nbase: tiny\nnew_key: 1\n")
    with pytest.raises(ConfigError, match="newer dreambooth") as caught:
        load_settings(layout)
    assert caught.value.hint == "update dreambooth"


def test_a_folder_without_settings_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_settings(Layout(tmp_path))


def test_user_settings_are_empty_without_a_file(tmp_path: Path) -> None:
    assert load_user_settings(tmp_path / "none.yaml").overrides == {}


def test_user_settings_lie_where_the_system_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = user_settings_file()
    assert path.name == "settings.yaml" and path.parent.name == "dreambooth"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_relative_to(tmp_path):  # on other systems the person's real folder would be touched
        path.write_text("profile: lora\noverrides: {train.steps: 10}\n")
        assert load_user_settings().overrides == {"train.steps": 10}
