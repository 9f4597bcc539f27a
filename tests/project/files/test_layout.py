from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbcli.errors import DreamboothError, Refused, UsageError
from dbcli.project.files.layout import Layout, find_project


def test_every_path_is_where_the_design_says() -> None:
    layout = Layout(Path("/p"))
    assert layout.settings_file == Path("/p/dreambooth.yaml")
    assert layout.subject_file("dog") == Path("/p/subjects/dog/subject.yaml")
    assert layout.photos_dir("dog") == Path("/p/subjects/dog/photos")
    assert layout.class_image_set_dir("dog-1a") == Path("/p/reg/dog-1a")
    assert layout.run_file("0003-dog") == Path("/p/runs/0003-dog/run.json")
    assert layout.events_file("0003-dog") == Path("/p/runs/0003-dog/events.jsonl")
    assert layout.checkpoints_dir("0003-dog") == Path("/p/runs/0003-dog/checkpoints")
    assert layout.weights_dir("0003-dog") == Path("/p/runs/0003-dog/weights")
    assert layout.images_dir("0003-dog") == Path("/p/runs/0003-dog/images")
    assert layout.previews_dir("0003-dog") == Path("/p/runs/0003-dog/previews")
    assert layout.probes_dir("0003-dog") == Path("/p/runs/0003-dog/probes")
    assert layout.eval_dir("0003-dog", "live") == Path("/p/runs/0003-dog/eval/live")
    assert layout.evals_dir("0003-dog") == Path("/p/runs/0003-dog/eval")
    assert layout.comparisons_dir == Path("/p/comparisons")
    assert layout.comparison_dir("0003-0004", "live") == Path("/p/comparisons/0003-0004/live")
    assert layout.cache_dir == Path("/p/.cache")
    assert layout.shown(layout.run_dir("0003-dog")) == "runs/0003-dog"


@settings(max_examples=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9./\\~$-]{1,70}", fullmatch=True))
def test_no_name_leads_out_of_the_project(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path)
    for path in (
        layout.subject_dir,
        layout.run_dir,
        layout.class_image_set_dir,
        lambda one: layout.eval_dir("1", one),
    ):
        try:
            assert path(name).resolve().parent.is_relative_to(tmp_path.resolve())
            assert path(name).name == name
        except DreamboothError:
            pass


def test_a_linked_subject_folder_is_refused(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    layout.subjects_dir.mkdir()
    (layout.subjects_dir / "dog").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="symbolic link"):
        layout.subject_dir("dog")
    with pytest.raises(Refused, match="symbolic link"):
        layout.photos_dir("dog")


def test_a_linked_runs_folder_is_refused(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (layout.root / "runs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused):
        layout.run_dir("0001-dog")


def test_a_project_is_found_from_deep_inside(layout: Layout) -> None:
    deep = layout.root / "runs" / "0001-dog" / "images"
    deep.mkdir(parents=True)
    assert find_project(deep) == Layout(layout.root.resolve())


def test_the_nearest_project_wins(layout: Layout) -> None:
    inner = layout.root / "inner"
    inner.mkdir()
    (inner / "dreambooth.yaml").write_text("base: tiny\n")
    assert find_project(inner).root == inner.resolve()


def test_no_project_names_init_and_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_project(tmp_path)
    assert caught.value.exit_code == 2
    assert "dreambooth init" in str(caught.value.hint) and "-C" in str(caught.value.hint)
