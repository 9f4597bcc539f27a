"""When out of memory in the middle of a run: one rung down the ladder, and on from the last step."""

import traceback

from dbcli.errors import OutOfMemory
from dbcli.project.files.atomic import remove_folder
from dbcli.project.runs.checkpoints import checkpoints
from dbcli.project.runs.probe_files import drop_probes, forget_probes
from dbcli.project.runs.run_store import Fallback, RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.memory.ladder import below, rung_of
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.setup.effective_settings import AUTO


def fall_back(run: RunContext, error: Exception) -> Profile:
    """The next smaller recipe after memory was full, which `error` says; the run goes on with it from its last step.

    Only `--profile auto` may turn one method into another (see `may_change_method`). Raises OutOfMemory where no rung
    is left.
    """
    # The frames of what failed still hold its tensors.
    traceback.clear_frames(error.__traceback__)
    smaller: Profile
    smaller, run.record.fallbacks = run.group.on_main(lambda: (_one_down(run, error), run.record.fallbacks))
    return smaller


def _one_down(run: RunContext, error: Exception) -> Profile:
    record, profile, here = run.record, run.profile, rung_of(run.profile)
    taught = sum(one.learnt_in is None for one in record.subjects)
    found = below(
        profile,
        record.base.name,
        other_method=may_change_method(record),
        subjects=taught,
        processes=run.group.size,
    )
    if found is None or here is None:
        raise _no_way_down(record, profile) from error
    rung, smaller = found
    step, reason = record.step, (str(error).splitlines() or [type(error).__name__])[0][:300]
    if smaller.method != profile.method:
        # Adapters cannot take over full weights, nor be judged by what those drew.
        for folder in checkpoints(run.layout, record.name):
            remove_folder(folder)
        drop_probes(run.layout, record.name)
        record.step, record.method, record.total_steps = 0, smaller.method, smaller.train.steps
    else:
        forget_probes(run.layout, record.name, after=step)
    record.profile = smaller.model_dump(mode="json") | {"name": record.profile.get("name")}
    is_new = smaller.train.optimizer != profile.train.optimizer
    record.fallbacks.append(
        Fallback(step=record.step, before=here.name, after=rung.name, reason=reason, optimiser_is_new=is_new)
    )
    run.event("fell back", {"step": step, "from": here.name, "to": rung.name, "reason": reason})
    run.save()
    where = f"continuing from step {record.step}" if record.step else "from the beginning"
    run.progress.warn(f"Out of memory. Falling back from '{here.name}' to '{rung.name}', {where}.")
    return smaller


def may_change_method(record: RunRecord) -> bool:
    """Whether `--profile auto` may make adapters of a full run: not on top of the weights of another one.

    An adapter is drawn with on the project's base, which what that run learnt is no part of.
    """
    return record.parent is None and record.profile.get("name") == AUTO


def _no_way_down(record: RunRecord, profile: Profile) -> OutOfMemory:
    here, is_auto = rung_of(profile), record.profile.get("name") == AUTO
    place = f" on the rung '{here.name}'" if here is not None else ""
    other = "" if is_auto or profile.method != "full" else "; a new run with --profile auto may take a LoRA"
    smaller = " --set train.batch_size=1" if profile.train.batch_size > 1 else ""
    return OutOfMemory(
        f"Out of memory{place}, and this run has no smaller recipe; a new run with a smaller "
        f"images.resolution takes less{other}.",
        hint=f"free some memory, then: dreambooth train --resume {record.name}{smaller}",
    )
