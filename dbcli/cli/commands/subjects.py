"""Looking at subjects, renaming and removing them."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.invocation import of
from dbcli.errors import Refused

subjects_app = typer.Typer(help="List, rename, set and remove subjects.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Which subject.", autocompletion=completion.subjects)]


@subjects_app.command("list")
def list_subjects(context: typer.Context) -> None:
    """All subjects, with their words and the runs that learnt them."""
    from dbcli.cli.output.tokens import show_subjects
    from dbcli.workflows.subjects.manage import all_subjects

    call = of(context)
    show_subjects(call.screen, *all_subjects(call.layout()))


@subjects_app.command("rename")
def rename(
    context: typer.Context,
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="What it is called from now on.")],
) -> None:
    """Give a subject another name; runs go on knowing it by the old one."""
    from dbcli.workflows.subjects.manage import rename as give_name

    call = of(context)
    subject = give_name(call.layout(), name, new_name)
    call.screen.document({"subject": subject.to_plain()})
    call.screen.line(f"{name} is {subject.name} now; runs trained before know it as {name}")


@subjects_app.command("set", short_help="Give a subject another identifier or class noun.")
def set_words(
    context: typer.Context,
    name: Name,
    token: Annotated[
        str | None, typer.Option("--token", "--word", metavar="WORD", help="Its identifier, a rare word.")
    ] = None,
    class_noun: Annotated[
        str | None, typer.Option("--class", metavar="NOUN", help="What kind of thing it is, in a word or two.")
    ] = None,
    allow_collision: Annotated[
        bool, typer.Option("--allow-collision", help="For research: take a word that clashes, and record that.")
    ] = False,
) -> None:
    """Give a subject an identifier or another class noun; runs keep the words they learnt."""
    from dbcli.workflows.status import teaching
    from dbcli.workflows.subjects.manage import change_words

    call = of(context)
    layout = call.layout()
    subject = change_words(layout, name, token, class_noun, allow=allow_collision)
    call.screen.document({"subject": subject.to_plain()})
    call.screen.line(f"{subject.name}: {subject.words.text}")
    call.screen.line(f"Next: {teaching(layout, subject)}", style="dim")


@subjects_app.command("remove", short_help="Remove a subject with its photos; its runs stay.")
def remove(context: typer.Context, name: Name) -> None:
    """Remove a subject with its photos; runs keep what they learnt, and its word stays theirs."""
    from dbcli.workflows.subjects.manage import current_name
    from dbcli.workflows.subjects.manage import remove as take_away

    call = of(context)
    layout = call.layout()
    name = current_name(layout, name)
    if not call.sure(f"Remove the subject {name} with its photos?"):
        raise Refused(f"{name} is kept.", hint="add --yes to remove it without being asked")
    take_away(layout, name)
    call.screen.document({"removed": name})
    call.screen.line(f"Removed {name}; runs that learnt it stay")
