"""Compose the training pictures: `pictures.npy` uint8 [N, 128, 128, 3], `alphas.npy` [N, 16, 16], `captions.json`."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from pretraining.compose import GeneratedImage, compose, rotate_hue
from pretraining.settings import LATENT_PX, PICTURE_PX, Run, parser, run_from
from pretraining.sprites import Sprite, load_sprites, make_sprites
from pretraining.tokens import rare_words

BLOCK = 48
IDENTITY_SHARE = 0.1
# the classes of the customary DreamBooth photos are drawn more often
OFTEN = {
    "dog": 1.8,
    "cat": 1.5,
    "teapot": 1.4,
    "backpack": 1.4,
    "stuffed animal": 1.2,
    "vase": 1.2,
    "can": 1.2,
}


@dataclass(frozen=True)
class Identity:
    """A rare word bound to one particular thing: a sprite in colours of its own."""

    token: str
    noun: str
    row: int
    set_name: str
    hue_degrees: float
    saturation: float


def identities(run: Run, records: list[Sprite]) -> list[Identity]:
    """Return the things with a name of their own; the same for the same seed."""
    draw = np.random.default_rng((run.seed, 1))
    usable = [record for record in records if not record.held_out]
    chosen = [usable[index] for index in draw.integers(0, len(usable), run.size.identities)]
    words = rare_words(run.seed, run.size.identities)
    return [
        Identity(word, one.noun, one.row, one.set_name, float(draw.uniform(-180, 180)), float(draw.uniform(0.8, 1.3)))
        for word, one in zip(words, chosen, strict=True)
    ]


def _one(
    draw: np.random.Generator,
    sprites: np.ndarray,
    things: dict[str, list[Sprite]],
    named: list[Identity],
    bind: bool,
) -> GeneratedImage:
    if named and draw.random() < IDENTITY_SHARE:
        identity = named[int(draw.integers(len(named)))]
        sprite = sprites[identity.row].astype(np.float32) / 255
        turned = rotate_hue(sprite, identity.hue_degrees, identity.saturation)
        return compose(draw, turned, identity.noun, identity.set_name, identity.token if bind else "")
    nouns = sorted(things)
    weights = np.array([OFTEN.get(noun, 1.0) for noun in nouns])
    noun = str(draw.choice(nouns, p=weights / weights.sum()))
    one = things[noun][int(draw.integers(len(things[noun])))]
    return compose(draw, sprites[one.row].astype(np.float32) / 255, noun, one.set_name, None)


def compose_block(run: Run, held_out: bool, bind: bool, block: int) -> list[GeneratedImage]:
    """Compose block number `block`; its pictures depend on the seed and its number alone, captions on `bind` too."""
    sprites, records = load_sprites(run)
    things: dict[str, list[Sprite]] = {}
    for record in records:
        if record.held_out == held_out:
            things.setdefault(record.noun, []).append(record)
    named = [] if held_out else identities(run, records)
    draw = np.random.default_rng((run.seed, 2 + held_out, block))
    return [_one(draw, sprites, things, named, bind) for _ in range(BLOCK)]


def compose_pictures(run: Run, count: int, held_out: bool, bind: bool = True) -> Iterator[GeneratedImage]:
    """Yield `count` pictures of the training sprites, or of the held-out ones, from two processes.

    Without `bind` the things with a name of their own are captioned by their class alone.
    """
    with ProcessPoolExecutor(2) as pool:
        blocks = pool.map(partial(compose_block, run, held_out, bind), range(-(-count // BLOCK)), chunksize=4)
        for index, image in enumerate(image for block in blocks for image in block):
            if index < count:
                yield image


def contact_sheet(pixels: np.ndarray, columns: int) -> Image.Image:
    """Join pictures [N, H, W, 3] into one image, row by row."""
    rows = len(pixels) // columns
    tiled = pixels[: rows * columns].reshape(rows, columns, *pixels.shape[1:]).swapaxes(1, 2)
    return Image.fromarray(tiled.reshape(rows * pixels.shape[1], columns * pixels.shape[2], 3))


def make_corpus(run: Run, bind: bool = True) -> None:
    """Write pictures, alphas, captions, identities and a contact sheet, unless they are there."""
    if run.path("captions.json").exists():
        return
    if not run.path("sprites.json").exists():
        make_sprites(run)
    _, records = load_sprites(run)
    named = identities(run, records) if bind else []
    count, side = run.size.images, PICTURE_PX
    # Three gigabytes: they go to the disk one by one.
    shape = (count, side, side, 3)
    pixels = np.lib.format.open_memmap(run.path("pictures.npy"), "w+", np.uint8, shape)
    alphas, captions = np.zeros((count, LATENT_PX, LATENT_PX), np.float16), []
    for row, made in enumerate(compose_pictures(run, count, held_out=False, bind=bind)):
        pixels[row], alphas[row] = made.pixels, made.alpha
        captions.append([made.caption, made.noun, made.scene, made.colour, made.style])
    pixels.flush()
    np.save(run.path("alphas.npy"), alphas)
    run.path("identities.json").write_text(json.dumps([vars(identity) for identity in named], indent=1))
    contact_sheet(pixels[:96], 12).save(run.path("samples/corpus.png"))
    # written last: it marks the corpus as whole
    run.path("captions.json").write_text(json.dumps(captions))


def main() -> None:
    """Fetch, render and compose the corpus of captioned pictures."""
    options = parser(main.__doc__ or "")
    options.add_argument("--without-words", action="store_true", help="bind no rare words: the same pictures, no names")
    arguments = options.parse_args()
    make_corpus(run_from(arguments), bind=not arguments.without_words)


if __name__ == "__main__":
    main()
