"""Identifiers: choosing, checking and listing the rare words that stand for subjects."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli.invocation import of

BesideNoun = Annotated[
    str | None, typer.Option("--class", metavar="NOUN", help="Class noun beside it; by default the first subject's.")
]
tokens_app = typer.Typer(help="Choose, check and list identifiers.", no_args_is_help=True, rich_markup_mode=None)


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
    from dbcli.cli.output.tokens import show_proposals
    from dbcli.workflows.subjects.identifiers import SuggestRequest, suggest

    call = of(context)
    wanted = SuggestRequest(class_noun, count, sequences, seed)
    show_proposals(call.screen, suggest(call.layout(), wanted, call.screen, offline=call.offline))


@tokens_app.command("check")
def check(
    context: typer.Context,
    word: Annotated[str, typer.Argument(metavar="WORD", help="The word.")],
    class_noun: BesideNoun = None,
) -> None:
    """Check how well a word would do as an identifier."""
    from dbcli.cli.output.tokens import show_verdict
    from dbcli.workflows.subjects.identifiers import check_word

    call = of(context)
    found = check_word(call.layout(), word, class_noun=class_noun, progress=call.screen, offline=call.offline)
    show_verdict(call.screen, found)


@tokens_app.command("list")
def list_words(
    context: typer.Context,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also measure how strong each word is in the base, which has to be loaded."),
    ] = False,
) -> None:
    """List identifiers and their subjects, here and in runs."""
    from dbcli.cli.output.tokens import show_holders
    from dbcli.workflows.subjects.identifiers import holders

    call = of(context)
    found = holders(call.layout(), measure=measure, progress=call.screen, offline=call.offline)
    show_holders(call.screen, found)
