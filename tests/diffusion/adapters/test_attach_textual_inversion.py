"""Words of a run's own: what they change, what they must not, and what other programs make of their file."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dbcli.diffusion.adapters.attach import Trainable, learnt_vectors, make_inversion
from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.conditioning import LearningPrompts, embed_prompts, token_ids
from dbcli.diffusion.families.process import Diffusion
from dbcli.diffusion.formats.embedding_files import read_embedding, write_embedding
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.state_files import read_state, write_state
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer
from dbcli.diffusion.word_vectors import WordVectors, add_words, added_tokens, fold_words, start_vectors
from dbcli.errors import UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_models

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
WIDTH = 64
# `hta` is also a piece of longer words, so that no tokenizer can have it as a token of its own.
PIECE = "hta"


@pytest.fixture
def model() -> Base:
    parts = {name: copy.deepcopy(network) for name, network in tiny_models.networks().items()}
    return tiny_models.base_of(parts)


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def learnt(model: Base, trainable: Trainable) -> torch.Tensor:
    return learnt_vectors(model, trainable, "dog", "sks").vectors


def trainer_for(model: Base, count: int = 2, rate: float = 1e-2, steps: int = 4) -> tuple[Trainer, Any]:
    words = {"dog": start_vectors(model, "sks", "dog", count)}
    trainable = make_inversion(model, words)
    mean = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    trainer = Trainer(
        model.denoiser,
        trainable,
        StepInputs(
            Posterior(mean, torch.full_like(mean, 0.1)),
            LearningPrompts(model, ["a photo of a sks dog"], torch.device("cpu")),
            BatchSampler([SubjectData([[0], [1], [2]], [SentenceData([0] * 3, [0] * 3)])], batch_size=1, seed=0),
        ),
        objective=Objective(Diffusion.of(SCHEDULER)),
        optimisation=Optimisation(learning_rate=rate, weight_decay=0.0),
        loop=LoopSettings(steps=steps),
    )
    return trainer, trainable


def run(trainer: Trainer, until: int | None = None) -> None:
    for _ in range(trainer.done, until or trainer.loop.steps):
        trainer.step()


def states(model: Base) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name in ("text_encoder", "unet")
        for key, value in model.networks[name].state_dict().items()
        if "added" not in key
    }


def test_only_the_new_vectors_move(model: Base) -> None:
    trainer, trainable = trainer_for(model)
    before, start = states(model), learnt(model, trainable).clone()
    run(trainer)
    after = states(model)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (learnt(model, trainable) != start).all()


def test_no_gradient_of_the_size_of_the_table_is_ever_made(model: Base) -> None:
    trainer, trainable = trainer_for(model)
    trainer.loss(0).total.backward()
    learning = {id(parameter) for parameter in trainable.tensors.values()}
    for network in (model.text_encoder, model.unet):
        assert all((one.grad is not None) == (id(one) in learning) for one in network.parameters())


def test_at_learning_rate_zero_not_one_bit_moves(model: Base) -> None:
    trainer, trainable = trainer_for(model, rate=0.0, steps=2)
    start = learnt(model, trainable).clone()
    run(trainer)
    assert torch.equal(start, learnt(model, trainable))


def test_a_run_that_was_stopped_ends_with_the_same_bits(model: Base, tmp_path: Path) -> None:
    other = copy.deepcopy(model)
    whole, expected = trainer_for(model)
    run(whole)
    first, _ = trainer_for(other)
    run(first, until=2)
    write_state(tmp_path, first.state())
    again, found = trainer_for(copy.deepcopy(tiny_models.model()))
    again.load_state(read_state(tmp_path))
    run(again)
    assert torch.equal(learnt(model, found), learnt(model, expected))


def test_vectors_start_where_the_initializer_is(model: Base) -> None:
    table = model.text_encoder.get_input_embeddings().weight.detach()
    dog, stuffed = (model.tokenizer(word, add_special_tokens=False).input_ids for word in ("dog", "stuffed animal"))
    starts = {
        (word, count): start_vectors(model, "sks", word, count).vectors
        for word, count in (("dog", 2), ("stuffed animal", 1), ("stuffed animal", 3))
    }
    torch.testing.assert_close(starts["dog", 2], table[[dog[0], dog[0]]])
    torch.testing.assert_close(starts["stuffed animal", 1][0], table[stuffed].mean(0))
    torch.testing.assert_close(starts["stuffed animal", 3], table[[*stuffed, stuffed[0]]])
    with pytest.raises(ValueError, match="no token"):
        start_vectors(model, "sks", " ", 1)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a sks dog", "a W W1 W2 dog"),
        ("a SKS, dog", "a W W1 W2 , dog"),
        ("sks", "W W1 W2"),
        ("two masks", "two masks"),  # another word that ends alike
        ("a dog", "a dog"),
    ],
)
@pytest.mark.parametrize("word", ["sks", PIECE])
def test_a_word_stands_for_all_its_vectors_and_for_itself_alone(
    model: Base, word: str, prompt: str, expected: str
) -> None:
    plain = tiny_models.tokenizer()
    add_words(model, [WordVectors(word, vectors(3))])
    numbers = dict(zip(("W", "W1", "W2"), added_tokens(model.tokenizer, word), strict=True))
    wanted: list[int] = []
    for part in expected.split():
        wanted += [numbers[part]] if part in numbers else plain(part, add_special_tokens=False).input_ids
    found = token_ids(model.tokenizer, [re.sub(r"\bsks\b", word, prompt).replace("SKS", word.upper())])[0].tolist()
    assert found[1 : 1 + len(wanted)] == wanted
    assert found[1 + len(wanted)] == plain.eos_token_id


def test_prompts_without_the_word_are_read_as_before(model: Base) -> None:
    prompts = ["a photo of a dog", "masks", "sksy thing", ""]
    before = embed_prompts(model, prompts).states
    add_words(model, [WordVectors("sks", vectors(2))])
    assert torch.equal(before, embed_prompts(model, prompts).states)


def test_a_model_keeps_the_tokenizer_of_others_as_it_was(model: Base) -> None:
    shared = model.tokenizer
    add_words(model, [WordVectors("sks", vectors(1))])
    assert len(shared) == 49408
    assert len(model.tokenizer) == 49409


def test_vectors_of_another_width_are_refused(model: Base) -> None:
    with pytest.raises(UnsupportedFile, match="768"):
        add_words(model, [WordVectors("sks", torch.zeros(1, 768))])


@pytest.mark.parametrize(("word", "count"), [("sks", 1), (PIECE, 3)])
def test_diffusers_draws_the_same_picture_with_the_file(model: Base, tmp_path: Path, word: str, count: int) -> None:
    from diffusers import StableDiffusionPipeline

    base = tiny_models.write_folder(tmp_path / "base")
    pipeline = StableDiffusionPipeline.from_pretrained(base, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    mine = copy.deepcopy(model)
    add_words(mine, [WordVectors(word, vectors(count))])
    spelt = word if word == "sks" else f"<{word}>"
    write_embedding(tmp_path / "word.safetensors", WordVectors(spelt, vectors(count)))
    pipeline.load_textual_inversion(str(tmp_path / "word.safetensors"))

    theirs = pipeline.encode_prompt(f"a {spelt} dog", torch.device("cpu"), 1, False)[0]
    ours = embed_prompts(mine, [f"a {word} dog"]).states
    assert torch.equal(theirs, ours)
    how = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "pt"}
    images = [
        pipeline(**what, **how, generator=torch.Generator().manual_seed(0), guidance_scale=1.0).images
        for what in ({"prompt": f"a {spelt} dog"}, {"prompt_embeds": ours})
    ]
    assert torch.equal(*images)
    plain = pipeline("a dog", **how, generator=torch.Generator().manual_seed(0), guidance_scale=1.0).images
    assert not torch.equal(plain, images[0])


def test_a_folded_table_reads_as_the_widened_one(model: Base) -> None:
    add_words(model, [WordVectors("sks", vectors(2)), WordVectors("ohwx", vectors(1, seed=1))])
    prompts = ["a sks dog beside a ohwx cat"]
    widened = embed_prompts(model, prompts).states
    fold_words(model)
    assert torch.equal(widened, embed_prompts(model, prompts).states)
    assert model.text_encoder.config.vocab_size == 49411


@pytest.mark.parametrize(
    ("key", "shape", "word"),
    [("<cat-toy>", (2, 64), "<cat-toy>"), ("emb_params", (3, 64), "toy"), ("*", (64,), "toy")],
)
def test_other_programs_files_are_read(tmp_path: Path, key: str, shape: tuple[int, ...], word: str) -> None:
    save_file({key: torch.ones(shape, dtype=torch.float16)}, tmp_path / "toy.safetensors")
    found = read_embedding(tmp_path / "toy.safetensors")
    assert (found.word, found.vectors.shape[1], found.vectors.dtype) == (word, 64, torch.float32)


def test_files_that_are_no_embedding_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"clip_l": torch.zeros(1, 768), "emb_params": torch.zeros(1, 1280)}, path)
    with pytest.raises(UnsupportedFile, match="several text encoders"):
        read_embedding(path)
    save_file({"sks": torch.full((1, 64), torch.nan)}, path)
    with pytest.raises(UnsafeFile, match="finite"):
        read_embedding(path)
    save_file({"sks": torch.zeros(500, 64)}, path)
    with pytest.raises(UnsafeFile, match="500"):
        read_embedding(path)


def test_a_word_that_cleaning_changes_is_met_in_a_prompt(model: Base) -> None:
    add_words(model, [WordVectors("ﬁqx", vectors(2))])
    first, second = added_tokens(model.tokenizer, "ﬁqx")
    for spelling in ("ﬁqx", "fiqx"):
        assert token_ids(model.tokenizer, [f"a {spelling} dog"])[0].tolist()[2:4] == [first, second]


def test_start_vectors_are_those_of_the_cleaned_word(model: Base) -> None:
    assert torch.equal(*(start_vectors(model, "sks", word, 1).vectors for word in ("ﬁsh", "fish")))
