"""Begin from an earlier base instead of from nothing: take over its text encoder and what its latents say.

Words the earlier base did not know may start beside one that it did (`--beside sneaker=shoe`): the word then begins
as a kind of the other. Give the same folder to `pretraining.base --warm-start` for the UNet; `pretraining.clip` is
then not needed.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from transformers import CLIPTextModel

from pretraining.settings import LATENT_CHANNELS, Run, parser, run_from
from pretraining.tokens import make_tokenizer

STEP_ASIDE = 0.05


@torch.no_grad()
def seed_new_words(tower: CLIPTextModel, beside: dict[str, str], seed: int) -> None:
    """Move the table's rows of new words beside those of words that the tower knows; `beside` maps one to the other."""
    tokenizer, table = make_tokenizer(), tower.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    for word, known in beside.items():
        new_id, known_id = (tokenizer(text).input_ids[1] for text in (word, known))
        table[new_id] = table[known_id] + STEP_ASIDE * torch.randn(table.shape[1], generator=generator)


def adopt(run: Run, base: Path, beside: dict[str, str]) -> None:
    """Copy the text encoder of a diffusers folder into the run, see `seed_new_words`, and its autoencoder.

    An autoencoder of the same form becomes the run's own; one of the first edition is the model for the first channels
    of the run's (`latents.py`).
    """
    channels = json.loads((base / "vae" / "config.json").read_text())["latent_channels"]
    target = run.path("vae") if channels == LATENT_CHANNELS else run.path("first_edition/vae")
    shutil.copytree(base / "vae", target, dirs_exist_ok=True)
    tower = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32)
    seed_new_words(tower, beside, run.seed)
    tower.save_pretrained(run.path("text_encoder"))


def main() -> None:
    """Take over the text encoder of an earlier base and what its latents say."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("base", type=Path, help="a diffusers folder, such as dbcli/embedded/sd")
    options.add_argument("--beside", nargs="*", default=[], metavar="NEW=KNOWN", help="words it does not know yet")
    arguments = options.parse_args()
    adopt(run_from(arguments), arguments.base, dict(pair.split("=", 1) for pair in arguments.beside))


if __name__ == "__main__":
    main()
