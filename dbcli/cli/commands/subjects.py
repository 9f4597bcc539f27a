"""Subjects and their identifiers: listing, renaming, choosing words, removing."""

from typing import Annotated

import typer

from dbcli.cli import completion
from dbcli.cli.commands import options
from dbcli.cli.invocation import of

subjects_app = typer.Typer(help="List, rename, set and remove subjects.", no_args_is_help=True, rich_markup_mode=None)
BesideNoun = Annotated[
    str | None, typer.Option("--class", metavar="NOUN", help="Its class noun; the first subject's by default.")
]
tokens_app = typer.Typer(help="Choose, check and list identifiers.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Which subject.", autocompletion=completion.subjects)]


@subjects_app.command("list")
def list_subjects(context: typer.Context) -> None:
    """List all subjects, with their words and the runs that learnt them."""
    from dbcli.cli.output.subjects import show_subjects
    from dbcli.workflows.subjects.manage import all_subjects

    call = of(context)
    show_subjects(call.screen, *all_subjects(call.layout))


@subjects_app.command("rename")
def rename(
    context: typer.Context, name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")]
) -> None:
    """Rename a subject; earlier runs still know it by the old name."""
    from dbcli.workflows.subjects.manage import rename as give_name

    call = of(context)
    subject = give_name(call.layout, name, new_name)
    call.screen.document({"subject": subject.to_plain()})
    call.screen.line(f"{name} is now {subject.name}; earlier runs still know it as {name}")


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
    subject = change_words(call.layout, name, token, class_noun, allow=allow_collision)
    call.screen.document({"subject": subject.to_plain()})
    call.screen.line(f"{subject.name}: {subject.words.text}")
    call.screen.next(teaching(call.layout, subject))


@subjects_app.command("remove", short_help="Remove a subject with its photos; its runs stay.")
def remove(context: typer.Context, name: Name) -> None:
    """Remove a subject with its photos; runs keep what they learnt, including its identifier."""
    from dbcli.workflows.subjects.manage import load_subject
    from dbcli.workflows.subjects.manage import remove as take_away

    call = of(context)
    name = load_subject(call.layout, name).name
    call.agree(f"Remove the subject {name} with its photos?", f"{name} is kept.")
    take_away(call.layout, name)
    call.screen.document({"removed": name})
    call.screen.line(f"Removed {name}; runs that learnt it stay")


@tokens_app.command("suggest")
def suggest_words(
    context: typer.Context,
    class_noun: BesideNoun = None,
    count: Annotated[int, typer.Option("-n", "--count", help="How many words.")] = 10,
    sequences: Annotated[
        bool, typer.Option("--sequences", help="Random sequences of one to three rare tokens, as in the paper.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the sequences; -1: random.")] = 0,
) -> None:
    """Suggest rare words, those that mean least to the base first."""
    from dbcli.cli.output.subjects import show_proposals
    from dbcli.workflows.subjects.identifiers import SuggestRequest, suggest

    call = of(context)
    wanted = SuggestRequest(class_noun, count, sequences, seed)
    show_proposals(call.screen, suggest(call.layout, wanted, call.screen, offline=call.offline))


@tokens_app.command("check")
def check(
    context: typer.Context,
    word: Annotated[str, typer.Argument(metavar="WORD", help="The word.")],
    class_noun: BesideNoun = None,
) -> None:
    """Check how well a word would do as an identifier."""
    from dbcli.cli.output.subjects import show_verdict
    from dbcli.workflows.subjects.identifiers import check_word

    call = of(context)
    found = check_word(call.layout, word, class_noun=class_noun, progress=call.screen, offline=call.offline)
    show_verdict(call.screen, found)


@tokens_app.command("list")
def list_words(
    context: typer.Context,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also measure each word's strength; loads the base."),
    ] = False,
) -> None:
    """List identifiers and their subjects, here and in runs."""
    from dbcli.cli.output.subjects import show_holders
    from dbcli.workflows.subjects.identifiers import holders

    call = of(context)
    found = holders(call.layout, measure=measure, progress=call.screen, offline=call.offline)
    show_holders(call.screen, found)
