"""Looking at subjects, renaming and removing them."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of

subjects_app = typer.Typer(help="List, rename, set and remove subjects.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Which subject.", autocompletion=completion.subjects)]


@subjects_app.command("list")
def list_subjects(context: typer.Context) -> None:
    """List all subjects, with their words and the runs that learnt them."""
    from dbcli.cli.output.subjects import show_subjects
    from dbcli.workflows.subjects.manage import all_subjects

    call = of(context)
    show_subjects(call.screen, *all_subjects(call.layout()))


@subjects_app.command("rename")
def rename(
    context: typer.Context,
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
) -> None:
    """Rename a subject; earlier runs still know it by the old name."""
    from dbcli.workflows.subjects.manage import rename as give_name

    call = of(context)
    subject = give_name(call.layout(), name, new_name)
    call.screen.document({"subject": subject.to_plain()})
    call.screen.line(f"{name} is now {subject.name}; runs trained before still know it as {name}")


@subjects_app.command("set", short_help="Change a subject's identifier or class noun.")
def set_words(
    context: typer.Context,
    name: Name,
    token: Annotated[
        str | None,
        typer.Option("--token", "--word", metavar="WORD", help="Its identifier: the rare word that stands for it."),
    ] = None,
    class_noun: options.ClassNoun = None,
    allow_collision: options.AllowCollision = False,
) -> None:
    """Change a subject's identifier or class noun; runs keep the words they learnt."""
    from dbcli.workflows.status import teaching
    from dbcli.workflows.subjects.manage import change_words

    call = of(context)
    layout = call.layout()
    subject = change_words(layout, name, token, class_noun, allow=allow_collision)
    call.screen.document({"subject": subject.to_plain()})
    call.screen.line(f"{subject.name}: {subject.words.text}")
    call.screen.next(teaching(layout, subject))


@subjects_app.command("remove", short_help="Remove a subject with its photos; its runs stay.")
def remove(context: typer.Context, name: Name) -> None:
    """Remove a subject with its photos; runs keep what they learnt, and its identifier stays theirs."""
    from dbcli.workflows.subjects.manage import current_name
    from dbcli.workflows.subjects.manage import remove as take_away

    call = of(context)
    layout = call.layout()
    name = current_name(layout, name)
    call.agree(f"Remove the subject {name} with its photos?", f"{name} is kept.")
    take_away(layout, name)
    call.screen.document({"removed": name})
    call.screen.line(f"Removed {name}; runs that learnt it stay")
