"""A run's numbers, live, in TensorBoard or Weights & Biases as well; `events.jsonl` has them always."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from dbcli.errors import UsageError
from dbcli.hints import installing
from dbcli.project.files.layout import Layout
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.completions import LOGS
from dbcli.workflows.progress import Progress, Stage


class Log(Protocol):
    """Takes the numbers of one run, step by step."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_logs(names: Sequence[str]) -> list[str]:
    """The logs asked for, each once. Raises UsageError before anything is trained if one does not exist."""
    for name in names:
        if name not in LOGS:
            raise UsageError(f"There is no log '{name[:40]}'.", hint=f"--log-to {' or '.join(LOGS)}")
        if find_spec(name) is None:
            raise UsageError(f"--log-to {name} needs one more package.", hint=installing(name))
    return list(dict.fromkeys(names))


@contextmanager
def logged(progress: Progress, layout: Layout, names: Sequence[str], *, offline: bool) -> Iterator[Progress]:
    """A Progress that shows what the given one shows and also writes every measured step to the logs."""
    if not names:
        yield progress
        return
    loud = _LoggedProgress(progress, layout, check_logs(names), offline)
    try:
        yield loud
    finally:
        loud.close()


class _LoggedProgress:
    def __init__(self, progress: Progress, layout: Layout, names: Sequence[str], offline: bool) -> None:
        self._progress, self._layout, self._names, self._offline = progress, layout, names, offline
        self._open: dict[str, dict[str, Log]] = {}
        self.note, self.warn = progress.note, progress.warn

    @contextmanager
    def stage(self, title: str, total: int, parts: int = 1) -> Iterator[Stage]:
        with self._progress.stage(title, total, parts) as stage:
            yield _LoggedStage(stage, self._write)

    def close(self) -> None:
        for opened in self._open.values():
            for name, log in opened.items():
                self._attempted(name, log.close)

    def _write(self, run: str, step: int, values: Mapping[str, float]) -> None:
        if run not in self._open:
            self._open[run] = self._opened(run)
        for name, log in list(self._open[run].items()):
            if not self._attempted(name, partial(log.write, step, values)):
                del self._open[run][name]

    def _opened(self, run: str) -> dict[str, Log]:
        """The logs of a run, known only once it has its number; those that cannot be opened are left out."""
        folder, opened = self._layout.run_dir(run), dict[str, Log]()

        def open_log(name: str) -> None:
            opened[name] = OPENERS[name](folder, run, self._offline)

        for name in self._names:
            self._attempted(name, partial(open_log, name))
        if opened:
            self._progress.note(f"Logging {run} to {' and '.join(opened)} ({folder / 'logs'}).")
        return opened

    def _attempted(self, name: str, work: Callable[[], object]) -> bool:
        return attempted(f"Logging to {name}", self._progress, lambda: [work()]) is not None


class _LoggedStage:
    def __init__(self, stage: Stage, write: Callable[[str, int, Mapping[str, float]], None]) -> None:
        self._stage, self._write = stage, write
        self.advance, self.complete, self.tell = stage.advance, stage.complete, stage.tell

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        self._stage.measure(run, step, values)
        self._write(run, step, values)


class _TensorBoard:
    def __init__(self, folder: Path, run: str, offline: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "logs" / "tensorboard"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path, run: str, offline: bool) -> None:
        import wandb

        (folder / "logs").mkdir(exist_ok=True)
        # The numbers of the run are wanted there, not the command line, code, output or system figures.
        settings = wandb.Settings(
            disable_git=True, save_code=False, console="off", x_disable_meta=True, x_disable_stats=True
        )
        mode = "offline" if offline else None
        self._run: Any = wandb.init(
            project="dreambooth", name=run, dir=str(folder / "logs"), mode=mode, settings=settings
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


OPENERS: dict[str, Callable[[Path, str, bool], Log]] = {"tensorboard": _TensorBoard, "wandb": _WeightsAndBiases}
