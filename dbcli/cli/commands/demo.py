"""The whole of DreamBooth in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dbcli.cli.invocation import of


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the project that the demo makes.")] = Path(
        "dreambooth-demo"
    ),
) -> None:
    """Run the whole job from photos to images and scores, on the embedded base and the bundled photos."""
    from dbcli.cli.output.evaluation import show_demo
    from dbcli.workflows.demo import run_demo

    call = of(context)
    show_demo(call.screen, run_demo(folder, call.screen))
