"""The whole of pretraining by one command: corpus, CLIP, autoencoder, base, judges, pack."""

import argparse
from pathlib import Path

from pretraining.autoencoder import make_autoencoder
from pretraining.base import make_base
from pretraining.clip import make_clip
from pretraining.corpus import make_corpus
from pretraining.judges import make_matched
from pretraining.pack import PARTS, make_pack
from pretraining.settings import Run, parser, run_from


def make_all(run: Run, embedded: Path) -> None:
    """Run every stage of a run, each going on from where it was left, and pack the result."""
    make_corpus(run)
    make_clip(run)
    make_autoencoder(run)
    make_base(run)
    make_matched(run, run.size.judge_seconds)
    make_pack(run, embedded, set(PARTS))


def main() -> None:
    """Make the embedded base and its judges from nothing."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("--embedded", type=Path, help="where to pack; by default `embedded` in the run's folder")
    arguments = options.parse_args()
    run = run_from(arguments)
    make_all(run, arguments.embedded or run.path("embedded"))


if __name__ == "__main__":
    main()
