"""Begin from an earlier base instead of from nothing: take over its autoencoder and its text encoder.

Words the earlier base did not know start beside one that it did, so that "sneaker" begins as a kind of shoe. Give
the same folder to `pretraining.base --warm-start` for the UNet; `pretraining.clip` is then not needed.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import CLIPTextModel

from pretraining.settings import Run, parser, run_from
from pretraining.tokens import make_tokenizer

# new word: (known word, how far to step aside)
NEIGHBOURS = {
    "sneaker": ("shoe", 0.05),
    "stuffed": ("teddy", 0.05),
    "animal": ("bear", 0.05),
    "plush": ("teddy", 0.05),
    "puppy": ("dog", 0.05),
    "kitten": ("cat", 0.05),
    "mug": ("cup", 0.05),
    "vase": ("teapot", 0.09),
    "top": ("on", 0.05),
    "gray": ("black", 0.09),
    "brown": ("orange", 0.09),
    "sunglasses": ("glasses", 0.05),
    "tin": ("can", 0.05),
    "grass": ("forest", 0.05),
    "field": ("forest", 0.05),
}


@torch.no_grad()
def seed_new_words(tower: CLIPTextModel, seed: int) -> None:
    """Move the table's rows of the new words beside those of their neighbours."""
    tokenizer, table = make_tokenizer(), tower.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    for word, (known, step_aside) in NEIGHBOURS.items():
        new_id, known_id = (tokenizer(text).input_ids[1] for text in (word, known))
        table[new_id] = table[known_id] + step_aside * torch.randn(table.shape[1], generator=generator)


def adopt(run: Run, base: Path) -> None:
    """Copy the autoencoder and the text encoder of a diffusers folder into the run."""
    shutil.copytree(base / "vae", run.folder / "vae", dirs_exist_ok=True)
    tower = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32)
    seed_new_words(tower, run.seed)
    tower.save_pretrained(run.path("text_encoder"))


def main() -> None:
    """Take over the autoencoder and the text encoder of an earlier base."""
    options: argparse.ArgumentParser = parser(main.__doc__ or "")
    options.add_argument("base", type=Path, help="a diffusers folder, such as dbcli/embedded/sd")
    arguments = options.parse_args()
    adopt(run_from(arguments), arguments.base)


if __name__ == "__main__":
    main()
