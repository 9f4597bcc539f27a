"""A sweep on a Ray cluster: one task a run, results in the project folder, which every node sees at the same path.

A task that is lost with its node is started again elsewhere; as every run is resumed from its last checkpoint and
every finished one is known by its key, nothing is done twice.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.errors import Interrupted, MachineError, UsageError
from dbcli.hints import installing
from dbcli.workflows.openmp import set_spin_count
from dbcli.workflows.progress import Progress, Silence
from dbcli.workflows.sweeps.units import Unit
from dbcli.workflows.sweeps.work import Outcome, carry_out, give_up

# How often a task begins anew after its node died, was told to stop, or ran out of memory.
RETRIES = 5
CPUS_A_TASK = 1


@dataclass(frozen=True)
class RayEngine:
    """Units as Ray tasks, each with a GPU where the cluster has any. Without an address, a cluster of this machine."""

    address: str | None = None

    def carry_out(self, root: Path, units: Sequence[Unit], progress: Progress, *, offline: bool) -> Iterator[Outcome]:
        if not units:
            return
        with _cluster(self.address) as ray:
            resources = ray.cluster_resources()
            gpus = 1 if resources.get("GPU", 0) >= 1 else 0
            progress.note(
                f"Ray: {sum(node['Alive'] for node in ray.nodes())} nodes, {resources.get('CPU', 0):g} CPUs, "
                f"{resources.get('GPU', 0):g} GPUs."
            )
            task = ray.remote(num_cpus=CPUS_A_TASK, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=[Interrupted])(
                work
            )
            tasks: dict[str, Any] = {}
            for unit in units:
                before = tasks[unit.after] if unit.after is not None else None
                tasks[unit.key] = task.options(name=unit.title[:60]).remote(str(root), unit, before, offline)
            yield from _ended(ray, root, units, tasks)


def work(root: str, unit: Unit, before: Outcome | None, offline: bool) -> Outcome:
    """The task: one unit, on whichever node. The project's folder is all that it shares with the others."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    set_spin_count()
    return carry_out(Path(root), unit, before, Silence(), offline=offline)


def _ended(ray: Any, root: Path, units: Sequence[Unit], tasks: Mapping[str, Any]) -> Iterator[Outcome]:
    """Outcomes as they come; one that the cluster lost for good is a failure of its unit."""
    waiting = {tasks[unit.key]: unit for unit in units}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        for one in ready:
            unit = waiting.pop(one)
            try:
                outcome: Outcome = ray.get(one)
            except ray.exceptions.RayError as error:
                lost = MachineError(f"The cluster lost the work {RETRIES + 1} times: {_first_line(error)}")
                outcome = give_up(root, unit, lost)
            yield outcome


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; only a cluster that was started here is stopped at the end.

    Raises UsageError where ray is not installed, MachineError where the address does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A GPU that no task asked for must not vanish from tasks that need none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs ray.", hint=installing("ray")) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=_dashboard(address))
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise MachineError(
            f"Ray at {address or 'this machine'} does not answer: {_first_line(error)}",
            hint="ray start --head starts a cluster; --address HOST:PORT names it",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _dashboard(address: str | None) -> bool | None:
    # Ray refuses the option where the cluster already exists.
    return False if address is None and "RAY_ADDRESS" not in os.environ else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
