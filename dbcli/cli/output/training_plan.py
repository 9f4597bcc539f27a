"""What a run would do and take, before it does it: what decides first, every setting on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column
from dbcli.counts import counted

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.project.settings.profile_settings import Profile
    from dbcli.workflows.memory.estimate import MemoryEstimate
    from dbcli.workflows.training.plan import TrainingPlan

RECIPE_COLUMNS = (
    Column("recipe", least=16, wraps=True),
    Column("peak memory", right=True),
    Column("time, about", right=True),
    Column("fits"),
)


def show_headline(screen: Screen, plan: TrainingPlan) -> None:
    """Who is taught how, in a line: known long before memory and time are."""
    from dbcli.workflows.models.textual_inversion import has_prior

    train, prior = plan.profile.train, plan.profile.prior
    names = ", ".join(subject.name for subject in plan.subjects)
    steps = f"{counted(train.steps, 'step')} of {counted(train.batch_size * train.accumulation, 'photo')}"
    many = "those in the folder" if prior.folder is not None else f"{prior.images} class images"
    classes = f" and as many of {many}" if has_prior(plan.profile) else ""
    screen.line(f"{names}: {plan.profile.method}, profile {plan.profile_name}, {steps}{classes}", style="bold")


def show_plan(screen: Screen, plan: TrainingPlan, layout: Layout, *, every_setting: bool) -> None:
    """Memory and time, what to know of the run, the settings that are not the profile's; all of them if wanted."""
    from dbcli.workflows.training.teacher import stored_bytes

    shape = None if plan.estimate is None else plan.estimate.latent_shape
    taken = stored_bytes(layout, plan.profile, [one.class_noun for one in plan.shown], shape)
    screen.document(_document(plan, taken))
    _show_needs(screen, plan)
    screen.note(*plan.notes)
    if taken is not None:
        screen.note(f"The teacher's predictions take at most {taken / 1e6:,.1f} MB in reg/.")
    screen.warn(*plan.cautions)
    _show_settings(screen, plan, layout, every_setting=every_setting)


def _document(plan: TrainingPlan, teacher_bytes: int | None) -> dict[str, object]:
    document: dict[str, object] = {
        "subjects": [subject.name for subject in plan.subjects],
        "profile": plan.profile_name,
        "settings": plan.profile.model_dump(mode="json"),
        "outlook": None if plan.estimate is None else _estimate_document(plan.estimate),
    }
    if plan.continuation is not None:
        document["from"] = plan.continuation.parent.name
        document["earlier"] = {one.name: one.rehearsed for one in plan.continuation.earlier}
    if teacher_bytes is not None:
        document["teacher_bytes"] = teacher_bytes
    return document


def _estimate_document(estimate: MemoryEstimate) -> dict[str, object]:
    """The estimates in bytes and seconds."""
    recipes = [
        {
            "recipe": one.rung,
            "peak_memory_bytes": one.peak_bytes,
            "phases_bytes": one.phases,
            "step_seconds": one.step_seconds,
            "seconds": one.seconds,
            "fits": one.fits,
        }
        for one in estimate.recipes
    ]
    fits = None if estimate.fitting is None else estimate.fitting.rung
    return {"device": estimate.device, "free_bytes": estimate.free_bytes, "fits": fits, "recipes": recipes}


def _show_needs(screen: Screen, plan: TrainingPlan) -> None:
    """The estimates as a table, and the first recipe that fits; or why there is none."""
    from dbcli.workflows.memory.estimate import ESTIMATED
    from dbcli.workflows.sweeps.remaining import duration

    estimate = plan.estimate
    if estimate is None:
        method = plan.profile.method
        why = "known once the base is on this machine" if method in ESTIMATED else f"not estimated for {method}"
        screen.line(f"Memory and time: {why}.")
        return
    rows = [
        (one.rung, f"{one.peak_bytes / 1e9:.2f} GB", duration(one.seconds), "yes" if one.fits else "no")
        for one in estimate.recipes
    ]
    screen.table(f"{estimate.device}, {estimate.free_bytes / 1e9:.1f} GB free", RECIPE_COLUMNS, rows)
    if estimate.fitting is None:
        screen.warn("No recipe fits this machine's free memory; a smaller images.resolution needs less.")
    elif estimate.fitting is not estimate.recipes[0]:
        more = "; --profile auto searches the whole ladder" if plan.recipe_is_open else ""
        screen.line(f"The first that fits: {estimate.fitting.rung}{more}.")


def _show_settings(screen: Screen, plan: TrainingPlan, layout: Layout, *, every_setting: bool) -> None:
    if every_setting:
        settings = plan.profile.model_dump(mode="json")
        screen.table(f"Every setting, profile {plan.profile_name}", ("setting", "value"), _rows(settings))
        return
    show_differences(screen, layout, plan.profile_name, plan.profile)
    screen.line("--all-settings lists every setting.", style="dim")


def show_differences(screen: Screen, layout: Layout, name: str, profile: Profile) -> None:
    """The settings that are not as the profile `name` has them, beside what it has; nothing where all are."""
    from dbcli.workflows.setup.effective_settings import settings_beside

    compared, others = settings_beside(layout, name, profile)
    if others:
        title = f"Different from the profile {compared}"
        screen.table(title, ("setting", "value", "profile"), [(key, new, old) for key, (old, new) in others.items()])


def _rows(settings: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (f"{section}.{key}" if isinstance(values, dict) else section, value)
        for section, values in settings.items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    ]
