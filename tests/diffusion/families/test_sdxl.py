"""Stable Diffusion XL against diffusers' own pipeline, on small random models of its whole architecture."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora, attach_lora, make_full
from dbcli.diffusion.bases.base import Base, load_base
from dbcli.diffusion.conditioning import FrozenPrompts, LearningPrompts, embed_pairs, embed_prompts
from dbcli.diffusion.families.known import family_of_file
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.families.sdxl import SDXL
from dbcli.diffusion.formats.checkpoint import original_tensors, write_checkpoint
from dbcli.diffusion.formats.diffusers_folder import write_base
from dbcli.diffusion.formats.diffusers_loading import lora_as_diffusers_reads_it, misread_layers, misread_model
from dbcli.diffusion.formats.lora import LoraWeights, attached_lora
from dbcli.diffusion.formats.lora_files import read_lora
from dbcli.diffusion.formats.lora_writing import for_diffusers, for_kohya, write_diffusers_lora, write_kohya_lora
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.noise import normal_rows, seed_for
from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images
from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer
from dbcli.errors import BaseMissing, UnsupportedFile
from tests.diffusion import tiny_models

PROMPTS = ["a sks dog in the snow", "a dog", ""]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_models.model("sdxl")


@pytest.fixture
def own() -> Base:
    """One whose networks may be changed."""
    return tiny_models.base_of(copy.deepcopy(tiny_models.networks("sdxl")), "sdxl")


def pipeline(base: Base) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    made = StableDiffusionXLPipeline(
        **base.networks,
        tokenizer=base.tokenizers["text_encoder"],
        tokenizer_2=base.tokenizers["text_encoder_2"],
        scheduler=DDIMScheduler.from_config(base.scheduler_config, timestep_spacing="trailing"),
        force_zeros_for_empty_prompt=base.zero_negative,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("skipped", [0, 1])
def test_states_and_pooled_text_are_those_of_diffusers(base: Base, skipped: int) -> None:
    own = embed_prompts(base, PROMPTS, clip_skip=skipped)
    states, _, pooled, _ = pipeline(base).encode_prompt(
        PROMPTS, device=CPU, do_classifier_free_guidance=False, clip_skip=skipped or None
    )
    assert own.states.shape == (3, 77, 64 + 96) and own.pooled is not None
    torch.testing.assert_close(own.states, states, rtol=0, atol=1e-6)
    torch.testing.assert_close(own.pooled, pooled, rtol=0, atol=1e-6)


@pytest.mark.parametrize("zero", [True, False])
def test_no_negative_prompt_is_zeros_where_the_model_says_so_and_an_empty_prompt_else(own: Base, zero: bool) -> None:
    own.zero_negative = zero
    _, found = embed_pairs(own, ["a dog"], [""])
    theirs = pipeline(own).encode_prompt("a dog", device=CPU, do_classifier_free_guidance=True)
    assert found.pooled is not None
    torch.testing.assert_close(found.states, theirs[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.pooled, theirs[3], rtol=0, atol=1e-6)
    assert bool((found.states == 0).all()) is zero
    _, written = embed_pairs(own, ["a dog"], ["blurry"])
    assert bool((written.states != 0).any())


def test_the_unet_is_told_the_size_uncropped_as_diffusers_tells_it(base: Base) -> None:
    told: list[dict[str, torch.Tensor]] = []
    handle = base.unet.register_forward_pre_hook(
        lambda _, args, kwargs: told.append(kwargs["added_cond_kwargs"]), with_kwargs=True
    )
    conditioning = embed_prompts(base, ["a dog", "a cat"])
    with torch.no_grad():
        base.denoiser(torch.zeros(2, 4, 4, 6), torch.tensor(500), conditioning)
    handle.remove()
    theirs = pipeline(base)._get_add_time_ids((32, 48), (0, 0), (32, 48), torch.float32, 96)
    assert torch.equal(told[0]["time_ids"], theirs.expand(2, -1))
    assert told[0]["time_ids"][0].tolist() == [32, 48, 0, 0, 32, 48]


def test_the_unet_is_told_how_each_row_was_framed_as_diffusers_tells_it(base: Base) -> None:
    told: list[dict[str, torch.Tensor]] = []
    handle = base.unet.register_forward_pre_hook(
        lambda _, args, kwargs: told.append(kwargs["added_cond_kwargs"]), with_kwargs=True
    )
    rows = embed_prompts(base, ["a dog", "a cat"]).framed([(300, 400, 3, 16, 32, 48), (32, 48, 0, 0, 32, 48)])
    with torch.no_grad():
        found = base.denoiser(torch.ones(2, 4, 4, 6), torch.tensor(500), rows)
        plain = base.denoiser(torch.ones(2, 4, 4, 6), torch.tensor(500), embed_prompts(base, ["a dog", "a cat"]))
    handle.remove()
    theirs = pipeline(base)._get_add_time_ids((300, 400), (3, 16), (32, 48), torch.float32, 96)
    assert torch.equal(told[0]["time_ids"][:1], theirs)
    assert told[0]["time_ids"].tolist() == [[300, 400, 3, 16, 32, 48], [32, 48, 0, 0, 32, 48]]
    # A row that was neither cut nor scaled is told of as one without a frame.
    assert torch.equal(found[1], plain[1]) and not torch.equal(found[0], plain[0])


def test_images_equal_those_of_the_plain_pipeline(base: Base) -> None:
    how = {"num_inference_steps": 2, "guidance_scale": 4.0, "height": 64, "width": 64, "output_type": "pt"}
    expected = pipeline(base)("a sks dog", generator=torch.Generator().manual_seed(7), **how).images[0]
    settings = SamplingSettings("ddim", 2, 4.0, 0.0, 64, 64)
    (found,) = (image for _, image in sample_images(base, [SampleRequest("a sks dog", 7)], settings))
    torch.testing.assert_close((found / 2 + 0.5).clamp(0, 1), expected, rtol=0, atol=1e-5)


def test_a_word_that_was_added_does_not_stand_for_the_end_of_the_prompt(own: Base) -> None:
    from dbcli.diffusion.word_vectors import WordVectors, add_words

    plain = embed_prompts(own, ["a dog"]).pooled
    for encoder in own.encoders.values():
        encoder.config.eos_token_id = 2  # as published configurations say
    more = {"text_encoder_2": torch.zeros(1, 96)}
    add_words(own, [WordVectors("<toy>", torch.zeros(1, 64), more)])
    prompts = embed_prompts(own, ["a dog", "a dog <toy>", "a dog <toy>"])
    assert plain is not None and prompts.pooled is not None
    torch.testing.assert_close(prompts.pooled[0], plain[0], rtol=0, atol=1e-6)
    # Of the token's own place nothing is left: there the state would be that of a zero vector.
    assert not torch.allclose(prompts.pooled[1], plain[0])


def test_a_folder_and_a_single_file_without_our_metadata_are_the_same_base(base: Base, tmp_path: Path) -> None:
    write_base(tmp_path / "folder", base, dtype=torch.float32)
    tensors = {name: tensor.contiguous() for name, tensor in original_tensors(base).items()}
    save_file(tensors, tmp_path / "bare.safetensors")
    folder, file = load_base(str(tmp_path / "folder")), load_base(str(tmp_path / "bare.safetensors"))
    assert (folder.family, file.family) == (SDXL, SDXL)
    assert folder.hash == file.hash
    assert [one.pad_token for one in file.tokenizers.values()] == ["<|endoftext|>", "!"]
    assert folder.zero_negative and file.zero_negative
    for name, network in base.networks.items():
        for key, tensor in network.state_dict().items():
            if not key.endswith("position_ids"):
                assert torch.equal(file.networks[name].state_dict()[key], tensor), (name, key)


def test_the_projection_lies_in_the_file_as_it_multiplies_from_the_right(base: Base) -> None:
    tensors = original_tensors(base)
    projection = base.networks["text_encoder_2"].text_projection.weight
    assert torch.equal(tensors["conditioner.embedders.1.model.text_projection"], projection.T)
    assert {"model.diffusion_model.label_emb.0.0.weight", "model.diffusion_model.label_emb.0.2.bias"} <= tensors.keys()
    assert family_of_file(tensors.keys()) is SDXL


def test_diffusers_reads_the_folder_and_the_single_file_tensor_for_tensor(base: Base, tmp_path: Path) -> None:
    write_base(tmp_path / "folder", base, dtype=torch.float32)
    write_checkpoint(tmp_path / "one.safetensors", base, dtype=torch.float32)
    assert misread_model(tmp_path / "folder", base) == []
    assert misread_model(tmp_path / "one.safetensors", base) == []


def test_what_a_checkpoint_keeps_of_the_negative_prompt_is_read_back(own: Base, tmp_path: Path) -> None:
    own.zero_negative = False
    write_checkpoint(tmp_path / "one.safetensors", own)
    write_base(tmp_path / "folder", own)
    assert not load_base(str(tmp_path / "one.safetensors")).zero_negative
    assert not load_base(str(tmp_path / "folder")).zero_negative


def random_lora(own: Base) -> LoraWeights:
    add_lora(own.tunable, LoraOptions(2, 4.0, ["to_q", "to_k", "to_out.0"], ["q_proj", "out_proj"], train_text=True))
    generator = torch.Generator().manual_seed(1)
    for network in own.tunable.values():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return attached_lora(own.tunable)


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
def test_a_lora_of_both_text_encoders_comes_back_to_the_bit_here_and_in_diffusers(
    base: Base, own: Base, tmp_path: Path, kind: str
) -> None:
    lora, path = random_lora(own), tmp_path / "l.safetensors"
    if kind == "kohya":
        lora = for_kohya(lora)
        write_kohya_lora(path, lora, SDXL, configs=base.configs, dtype=torch.float32)
        starts = {name.partition("_text_model_")[0] for name in load_file(path) if "_te" in name}
        assert starts == {"lora_te1", "lora_te2"}
        # As kohya's own trainer writes them: its merging looks for nothing else, and leaves out the rest unsaid.
        places = {name.split("_blocks_")[0] for name in load_file(path) if "_te" not in name}
        assert places == {"lora_unet_input", "lora_unet_output", "lora_unet_middle_block_1_transformer"}
        assert "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0.alpha" in load_file(path)
    else:
        lora = for_diffusers(lora)
        write_diffusers_lora(path, lora, base, dtype=torch.float32)
    fresh = tiny_models.base_of(copy.deepcopy(tiny_models.networks("sdxl")), "sdxl")
    read, theirs = read_lora(path, fresh), lora_as_diffusers_reads_it(fresh, path)
    for part in SDXL.tunable:
        assert lora.part(part).keys() == read.part(part).keys()
        assert misread_layers(read.part(part), lora.part(part)) == []
        assert misread_layers(theirs.part(part), lora.part(part)) == []
    noisy, level = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor(500)
    attach_lora(fresh.tunable, read)
    with torch.no_grad():
        for network in own.tunable.values():
            network.eval()
        expected = own.denoiser(noisy, level, embed_prompts(own, ["a dog"]))
        found = fresh.denoiser(noisy, level, embed_prompts(fresh, ["a dog"]))
        plain = base.denoiser(noisy, level, embed_prompts(base, ["a dog"]))
    assert float((found - expected).abs().max()) <= 1e-6 < float((plain - expected).abs().max())


def trainer_for(own: Base, trainable: Any, **how: Any) -> Trainer:
    generator = torch.Generator().manual_seed(5)
    images = Posterior(torch.randn(4, 4, 8, 8, generator=generator), torch.full((4, 4, 8, 8), 0.1))
    table = LearningPrompts if trainable.trains_text else FrozenPrompts
    return Trainer(
        own.denoiser,
        trainable,
        StepInputs(
            images,
            table(own, ["a sks dog", "a dog"], CPU),
            BatchSampler([SubjectData([[0], [1]], [SentenceData([0, 0], [0, 0], (2, 3), 1)])], batch_size=1, seed=0),
        ),
        objective=Objective(own.process, prior_weight=0.5),
        optimisation=Optimisation(learning_rate=1e-3, **how),
        loop=LoopSettings(steps=2),
    )


def test_the_loss_is_that_of_a_loop_that_knows_nothing_of_families(own: Base) -> None:
    """Text states, pooled text and sizes by hand from transformers' and diffusers' own classes, row by row."""
    trainer = trainer_for(own, make_full(own.tunable, train_text=False))
    found = trainer.loss(0).total.item()
    batches, unet, terms = trainer.inputs.batches, own.unet, []
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    for place, row in enumerate([*batches.subject_rows(0), *batches.prior_rows(0)]):
        spread, noise = (normal_rows((4, 8, 8), 0, what, 0, [place]) for what in ("posterior", "noise"))
        draw = torch.Generator().manual_seed(seed_for(0, "timestep", 0, place))
        level = torch.randint(0, 1000, (1,), generator=draw)
        images = trainer.inputs.images
        clean = images.mean[row.image] + images.deviation[row.image] * spread
        noisy = alphas[level].sqrt() * clean + (1 - alphas[level]).sqrt() * noise
        text = ["a sks dog", "a dog"][row.prompt]
        ids = [own.tokenizers[name](text, padding="max_length", return_tensors="pt").input_ids for name in own.encoders]
        outputs = [e(i, output_hidden_states=True) for e, i in zip(own.encoders.values(), ids, strict=True)]
        added = {"text_embeds": outputs[1].text_embeds, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
        states = torch.cat([one.hidden_states[-2] for one in outputs], -1)
        with torch.no_grad():
            guess = unet(noisy, level, states, added_cond_kwargs=added).sample
        terms.append(float((guess - noise).square().mean()))
    assert math.isclose(found, terms[0] + 0.5 * terms[1], rel_tol=1e-5)


def test_each_text_encoder_learns_at_its_own_rate(own: Base) -> None:
    rates = {"text_encoder": 2e-4, "text_encoder_2": 3e-4}
    trainer = trainer_for(own, make_full(own.tunable, train_text=True), part_rates=rates)
    assert [group["base_rate"] for group in trainer.optimiser.param_groups] == [1e-3, 2e-4, 3e-4]
    before = {name: tensor.detach().clone() for name, tensor in trainer.trainable.tensors.items()}
    assert {name.partition(".")[0] for name in before} == set(SDXL.tunable)
    trainer.step()
    moved = {
        name.partition(".")[0] for name, old in before.items() if not torch.equal(old, trainer.trainable.tensors[name])
    }
    assert moved == set(SDXL.tunable)


def test_a_lora_for_xl_is_refused_by_a_base_of_1(own: Base, tmp_path: Path) -> None:
    write_kohya_lora(tmp_path / "xl.safetensors", random_lora(own), SDXL)
    with pytest.raises(UnsupportedFile, match="a LoRA for Stable Diffusion XL"):
        read_lora(tmp_path / "xl.safetensors", tiny_models.model())


def test_a_lora_for_1_is_refused_by_a_base_of_xl(base: Base, tmp_path: Path) -> None:
    other = tiny_models.base_of(copy.deepcopy(tiny_models.networks()))
    add_lora(other.tunable, LoraOptions(2, 4.0, ["to_q"], []))
    write_kohya_lora(tmp_path / "sd.safetensors", attached_lora(other.tunable), SD)
    with pytest.raises(UnsupportedFile, match="this base does not have|made for another base"):
        read_lora(tmp_path / "sd.safetensors", base)


def test_a_file_without_its_second_text_encoder_and_an_inpainting_model_are_refused(base: Base, tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in original_tensors(base).items()}
    lacking = {name: one for name, one in tensors.items() if "embedders.1" not in name}
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(BaseMissing, match="only one of two text encoders"):
        load_base(str(tmp_path / "lacking.safetensors"))
    first = "model.diffusion_model.input_blocks.0.0.weight"
    save_file(tensors | {first: torch.zeros(32, 9, 3, 3)}, tmp_path / "inpainting.safetensors")
    with pytest.raises(UnsupportedFile, match="an inpainting model"):
        load_base(str(tmp_path / "inpainting.safetensors"))


def test_textual_inversion_learns_a_table_for_each_text_encoder_and_diffusers_reads_both(
    own: Base, tmp_path: Path
) -> None:
    from dbcli.diffusion.adapters.attach import learnt_vectors, make_inversion
    from dbcli.diffusion.formats.diffusers_loading import load_embedding
    from dbcli.diffusion.formats.embedding_files import read_embedding, write_embedding
    from dbcli.diffusion.word_vectors import start_vectors

    trainable = make_inversion(own, {"dog": start_vectors(own, "sks", "dog", 2)})
    assert {name: tuple(tensor.shape) for name, tensor in trainable.tensors.items()} == {
        "vectors.dog": (2, 64),
        "text_encoder_2 vectors.dog": (2, 96),
    }
    start = learnt_vectors(own, trainable, "dog", "sks").each(torch.clone)
    trainer_for(own, trainable).step()
    learnt = learnt_vectors(own, trainable, "dog", "sks")
    assert not torch.equal(learnt.vectors, start.vectors)
    assert not torch.equal(learnt.more["text_encoder_2"], start.more["text_encoder_2"])

    write_embedding(tmp_path / "sks.safetensors", learnt)
    assert set(load_file(tmp_path / "sks.safetensors")) == {"clip_l", "clip_g"}
    back = read_embedding(tmp_path / "sks.safetensors")
    assert back.word == "sks" and torch.equal(back.vectors, learnt.vectors)
    assert torch.equal(back.more["text_encoder_2"], learnt.more["text_encoder_2"])
    fresh = tiny_models.base_of(copy.deepcopy(tiny_models.networks("sdxl")), "sdxl")
    load_embedding(fresh, tmp_path / "sks.safetensors")
    theirs = pipeline(fresh).encode_prompt("a sks dog", device=CPU, do_classifier_free_guidance=False)[0]
    torch.testing.assert_close(embed_prompts(own, ["a sks dog"]).states, theirs, rtol=0, atol=1e-6)


def test_the_autoencoder_stays_out_of_half_precision(base: Base) -> None:
    seen: list[bool] = []
    handle = base.vae.decoder.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        list(sample_images(base, [SampleRequest("a dog", 1)], SamplingSettings("ddim", 1, 1.0, 0.0, 64, 64)))
    handle.remove()
    assert seen == [False]


def test_as_many_layers_can_be_skipped_as_both_text_encoders_have(base: Base) -> None:
    from dbcli.workflows.images.generated import text_layers

    # Twelve layers and thirty-two; the last of each conditions nothing.
    assert text_layers(base) == 11
    assert text_layers(tiny_models.model()) == 12


def test_the_full_architecture_has_the_published_size_and_names_that_diffusers_turns_back() -> None:
    from diffusers.loaders import single_file_utils as theirs

    from dbcli.diffusion.bases.assembly import empty_network
    from dbcli.diffusion.bases.single_file import shipped_configs

    configs = shipped_configs("sdxl")
    networks = {name: empty_network(name, part, configs[name]) for name, part in SDXL.parts.items()}
    counts = {name: sum(one.numel() for one in network.parameters()) for name, network in networks.items()}
    assert counts == {
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "unet": 2_567_463_684,
        "vae": 83_653_863,
    }
    unet = {name: torch.tensor(float(place)) for place, name in enumerate(networks["unet"].state_dict())}
    assert len(unet) == 1680
    file = {SDXL.original("unet", name, configs).name: value for name, value in unet.items()}
    back = theirs.convert_ldm_unet_checkpoint(dict(file), dict(networks["unet"].config))
    assert {name: value.item() for name, value in back.items()} == {name: one.item() for name, one in unet.items()}
    text = [name.removeprefix("text_model.") for name in networks["text_encoder"].state_dict()]
    names = [SDXL.original("text_encoder", name, configs).name for name in text if "position_ids" not in name]
    assert {
        name.removeprefix("text_model.") for name in theirs.convert_ldm_clip_checkpoint(dict.fromkeys(names, 0))
    } == {name for name in text if "position_ids" not in name}
