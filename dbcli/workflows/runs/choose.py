"""Which run a command means: the one that is named, the one that knows what the prompts name, or the newest."""

from collections.abc import Sequence

from dbcli.errors import PromptError, RunMissing, UsageError
from dbcli.hints import quoted_prompt
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import mentions, subject_fields
from dbcli.project.runs.run_store import RunRecord, list_runs, newest_run
from dbcli.project.subjects.known_runs import FINISHED, learnt, listed, names_of, newest_first, run_meant, runs_knowing
from dbcli.workflows.prompts.render import check_subjects

BARE_BASE = "base"


def chosen_run(
    layout: Layout, run: str | None, checkpoint: int | None = None, *, prompts: Sequence[str] = ()
) -> RunRecord | None:
    """The finished run meant by --run, a number, a name or a subject; None for `--run base`.

    Without a name it is the newest run that learnt the subjects which `prompts` name, in braces or by their words; the
    cells of a sweep come after runs made by hand. A named run with a checkpoint need not be finished. Raises UsageError
    for a checkpoint of the bare base, RunMissing or PromptError, with the runs that would do, where none is found.
    """
    if run == BARE_BASE:
        if checkpoint is not None:
            raise UsageError("The bare base has no checkpoints.", hint="--run NAME --checkpoint STEP")
        return None
    if not run:
        return _newest(layout, prompts)
    record = run_meant(layout, run)
    if checkpoint is None:
        require_weights(record)
    return record


def require_weights(record: RunRecord) -> None:
    """Raises RunMissing for a run that has no result yet."""
    if record.state != "finished":
        raise RunMissing(
            f"The run {record.name} is {record.state} and has no weights yet.",
            hint=f"dreambooth train --resume {record.name}",
        )


def _newest(layout: Layout, prompts: Sequence[str]) -> RunRecord:
    runs = list_runs(layout)
    finished = newest_first(run for run in runs if run.state in FINISHED)
    if not finished:
        return newest_run(layout)  # which says that there is none
    named = subject_fields(prompts)
    check_subjects(layout, named, prompts, runs)
    called_before = [names_of(layout, name) for name in named]
    fitting = [run for run in finished if all(learnt(run, names) for names in called_before)]
    if not fitting:
        raise _none_knows(layout, named, prompts)
    learnt_words = [(one.identifier, one.name) for run in finished for one in run.subjects]
    typed = {word for word, _ in learnt_words if word and mentions(prompts, word)}
    called = {name for _, name in learnt_words if mentions(prompts, name)}

    def known(run: RunRecord) -> tuple[int, int]:
        """How many of the words and names that the prompts say a run learnt."""
        return sum(one.identifier in typed for one in run.subjects), sum(one.name in called for one in run.subjects)

    return max(fitting, key=known)


def _none_knows(layout: Layout, named: Sequence[str], prompts: Sequence[str]) -> PromptError | RunMissing:
    """Why no run can generate prompts that name these subjects, and what to type instead."""
    knowing = {name: runs_knowing(layout, name) for name in named}
    untaught = [name for name, runs in knowing.items() if not runs]
    if untaught:
        return RunMissing(
            f"No finished run has learnt {' and '.join(untaught)}.", hint=f"dreambooth train --subject {untaught[0]}"
        )
    lines = "; ".join(f"{name}: {listed(runs)}" for name, runs in knowing.items())
    loras = [next((run.name for run in runs if run.method == "lora"), None) for runs in knowing.values()]
    together = " ".join(f"--run {name}" for name in dict.fromkeys(loras))
    subjects = " ".join(f"--subject {name}" for name in named)
    draw = f"dreambooth generate {quoted_prompt(prompts[0])} {together}"
    hint = f"dreambooth train {subjects}" if None in loras else draw
    return PromptError(f"No run has learnt {' and '.join(named)} together; {lines}.", hint=hint)
