"""The first moment of the program: signals are heard before anything slow is imported."""

import os
import signal
from types import FrameType


def main() -> None:
    """What the command `dreambooth` runs."""
    # Importing takes a good part of a second, in which Python would answer Ctrl-C with a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_at_once)
    from dbcli.garbage import collect_rarely

    collect_rarely()
    from dbcli.cli.app import main as run

    run()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
