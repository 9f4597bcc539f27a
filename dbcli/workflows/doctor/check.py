"""What one check of the doctor says: a verdict, what was found, and how to mend it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from dbcli.errors import DreamboothError
from dbcli.workflows.progress import Progress

Part = Literal["machine", "project"]
Verdict = Literal["good", "note", "fault"]


@dataclass(frozen=True)
class Check:
    """One check: good needs nothing, a note limits what can be done, a fault stops something from working."""

    part: Part = field(default="machine", kw_only=True)
    name: str
    verdict: Verdict = field(kw_only=True)
    found: str
    fix: str | None = None


Look = Callable[[], Iterator[Check]]
good, note, fault = partial(Check, verdict="good"), partial(Check, verdict="note"), partial(Check, verdict="fault")


def checks_of(part: Part, title: str, looks: Mapping[str, Look], progress: Progress) -> list[Check]:
    """All that the looks at one part find, in order; a look that fails is itself a finding, and the others go on."""
    found: list[Check] = []
    with progress.stage(title, len(looks)) as stage:
        for name, look in looks.items():
            stage.tell(name)
            try:
                found += look()
            except DreamboothError as error:
                found.append(fault(name, error.message, error.hint or "see the message"))
            except Exception as error:  # a doctor must survive what it finds
                first = next(iter(str(error).splitlines()), "")
                found.append(fault(name, f"{type(error).__name__}: {first}", "reinstall dreambooth"))
            stage.advance()
    return [replace(check, part=part) for check in found]
