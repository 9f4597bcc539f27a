"""Identifiers: choosing, checking and listing the rare words that stand for subjects."""

from __future__ import annotations

from typing import Annotated

import typer

from dbcli.cli.invocation import of

tokens_app = typer.Typer(help="Choose, check and list identifiers.", no_args_is_help=True, rich_markup_mode=None)


@tokens_app.command("suggest")
def suggest_words(
    context: typer.Context,
    class_noun: Annotated[
        str | None, typer.Option("--class", help="Beside which class noun; the first subject's by default.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="How many.")] = 10,
    sequences: Annotated[
        bool, typer.Option("--sequences", help="Random sequences of one to three rare tokens, as in the paper.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random sequences; -1: random.")] = 0,
) -> None:
    """Propose rare words, those that mean least to the base first."""
    from dbcli.cli.output.tokens import show_proposals
    from dbcli.workflows.subjects.identifiers import SuggestRequest, suggest

    call = of(context)
    layout, screen = call.layout(), call.screen
    how = SuggestRequest(class_noun, count, sequences, seed)
    show_proposals(screen, suggest(layout, how, screen, offline=call.offline))


@tokens_app.command("check")
def check(
    context: typer.Context,
    word: Annotated[str, typer.Argument(metavar="WORD", help="The word.")],
    class_noun: Annotated[
        str | None, typer.Option("--class", help="Beside which class noun; the first subject's by default.")
    ] = None,
) -> None:
    """Say what speaks for and against a word."""
    from dbcli.cli.output.tokens import show_verdict
    from dbcli.workflows.subjects.identifiers import check_word

    call = of(context)
    layout, screen = call.layout(), call.screen
    show_verdict(screen, check_word(layout, word, class_noun=class_noun, progress=screen, offline=call.offline))


@tokens_app.command("list")
def list_words(
    context: typer.Context,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also what each word means to the base, which has to be loaded.")
    ] = False,
) -> None:
    """Which identifier belongs to which subject, here and in runs."""
    from dbcli.cli.output.tokens import show_holders
    from dbcli.workflows.subjects.identifiers import holders

    call = of(context)
    layout, screen = call.layout(), call.screen
    show_holders(screen, holders(layout, measure=measure, progress=screen, offline=call.offline))
