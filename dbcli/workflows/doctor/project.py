"""A look at one project: its settings, base, photos, runs and class images, every hash compared."""

from collections.abc import Iterator
from pathlib import Path

from dbcli.counts import counted
from dbcli.errors import DreamboothError
from dbcli.project.class_images.class_image_sets import ClassImageSet, list_class_image_sets
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import is_held
from dbcli.project.files.manifests import first_fault
from dbcli.project.runs.checkpoints import newest_checkpoint
from dbcli.project.runs.run_store import RunRecord, list_runs, read_runs
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_store import damaged_subjects, list_subjects, verify_photos
from dbcli.workflows.doctor.check import Check, Look, checks_of, fault, good, note
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import resolve_profile

GIGABYTE = 1e9


def project_checks(layout: Layout, progress: Progress) -> list[Check]:
    """Every check of a project; nothing in it is changed."""
    looks: dict[str, Look] = {
        "settings": lambda: _settings(layout),
        "base": lambda: _base(layout),
        "photos": lambda: _photos(layout),
        "recipe": lambda: _recipe(layout),
        "runs": lambda: _runs(layout),
        "class images": lambda: _class_images(layout),
    }
    return checks_of("project", "Checking the project's files", looks, progress)


def _settings(layout: Layout) -> Iterator[Check]:
    name, profile = resolve_profile(layout)
    yield good("settings", f"{layout.root}: profile {name}, {profile.method}, {counted(profile.train.steps, 'step')}")


def _base(layout: Layout) -> Iterator[Check]:
    """Whether the base could be loaded now, without the network."""
    from dbcli.diffusion.bases import hub
    from dbcli.diffusion.bases.base import resolve_base
    from dbcli.errors import Unreachable

    settings = load_settings(layout)
    try:
        reference = resolve_base(settings.base, settings.revision, offline=True)
        if reference.kind == "hub":
            hub.download(reference.source, str(reference.revision), offline=True, variant=reference.variant)
        if settings.vae is not None and not Path(settings.vae).exists():
            yield fault("base", f"its VAE {settings.vae} is gone", "put it back, or create a new project")
            return
    except Unreachable:
        yield note("base", f"{settings.base} is not on this machine yet", "the first run downloads it")
        return
    known = f", weights {settings.base_hash[:12]}" if settings.base_hash else ", not loaded yet"
    yield good("base", f"{settings.base}{known}")


def _photos(layout: Layout) -> Iterator[Check]:
    subjects = list_subjects(layout)
    for line in damaged_subjects(layout):
        yield fault("subject", line, "delete its folder and add the subject again")
    for subject in subjects:
        try:
            count = len(verify_photos(layout, subject))
            yield good("subject", f"{subject.name}: {counted(count, 'photo')} unchanged")
        except DreamboothError as error:
            yield fault("subject", error.message, error.hint or "add the subject again")
    if not subjects:
        yield note("subjects", "none yet", "dreambooth add-subject")


def _recipe(layout: Layout) -> Iterator[Check]:
    """What the project's own recipe takes of this machine, and what would fit if it does not."""
    from dbcli.workflows.memory.estimate import estimate_recipe

    _, profile = resolve_profile(layout)
    estimate = estimate_recipe(layout, list_subjects(layout), profile)
    if estimate is None:
        return
    first, free = estimate.recipes[0], f"{estimate.free_bytes / GIGABYTE:.1f} GB free"
    minutes = max(1, round(first.seconds / 60))
    found = f"{first.rung}: about {first.peak_bytes / GIGABYTE:.1f} GB at its peak ({free}) and {minutes} min"
    if first.fits:
        yield good("recipe", found)
    elif estimate.fitting is not None:
        fix = f"train --profile auto, which takes the first that fits ({estimate.fitting.rung} would)"
        yield note("recipe", found, fix)
    else:
        fix = "close other programs, or --set images.resolution to a smaller one"
        yield note("recipe", f"{found}; nothing smaller fits either", fix)


def _runs(layout: Layout) -> Iterator[Check]:
    for line in read_runs(layout)[1]:
        yield fault("run", line, "dreambooth runs rm RUN, or restore its run.json")
    for record in list_runs(layout):
        yield _run(layout, record)


def _run(layout: Layout, record: RunRecord) -> Check:
    name = record.name
    at = f"step {record.step} of {record.total_steps}"
    if is_held(layout.run_lock(record.name)):
        return good("run", f"{name}: training now, {at}")
    if record.state == "finished":
        damage = first_fault(layout.weights_dir(record.name))
        if damage is not None:
            fix = f"dreambooth runs rm {record.number}, and train again"
            return fault("run", f"{name}: finished, but {damage}", fix)
        return good("run", f"{name}: finished, weights unchanged")
    whole = newest_checkpoint(layout, record.name)
    where = f"a complete checkpoint at {whole.name}" if whole is not None else "no complete checkpoint: it starts over"
    # A record that says running without anybody holding its lock belongs to a process that was killed.
    state = "was killed" if record.state in ("running", "created") else record.state
    return note("run", f"{name}: {state} at {at}; {where}", f"dreambooth train --resume {record.name}")


def _class_images(layout: Layout) -> Iterator[Check]:
    for one in list_class_image_sets(layout):
        recorded = one.recorded_count()
        sound = _sound(one, recorded)
        if sound < recorded:
            fix = "the next run generates them again" if one.recipe else f"delete reg/{one.key}; it is copied again"
            yield note("class images", f"{one.key}: {recorded - sound} of {recorded} were changed", fix)
        else:
            yield good("class images", f"{one.key}: {recorded} images unchanged")


def _sound(one: ClassImageSet, recorded: int) -> int:
    try:
        return len(one.images(recorded))
    except DreamboothError:
        return 0
