"""Z-Image against diffusers' own pipeline, on a small random model of its whole architecture."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dbcli.diffusion.adapters.attach import LoraOptions, add_lora, attach_lora
from dbcli.diffusion.bases.base import Base, judge_base, load_base, resolve_base
from dbcli.diffusion.bases.quantized import SmallLinear, shrink
from dbcli.diffusion.conditioning import FrozenPrompts, embed_pairs, embed_prompts
from dbcli.diffusion.estimate.meta_base import load_meta_base
from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Denoiser
from dbcli.diffusion.families.z_image import Z_IMAGE, denoise
from dbcli.diffusion.formats.diffusers_loading import lora_as_diffusers_reads_it, misread_layers
from dbcli.diffusion.formats.lora import LoraWeights, attached_lora
from dbcli.diffusion.formats.lora_files import read_lora
from dbcli.diffusion.formats.lora_writing import for_diffusers, write_diffusers_lora, write_kohya_lora
from dbcli.diffusion.images import Posterior, decode, encode
from dbcli.diffusion.noise import normal_rows
from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images
from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer
from dbcli.diffusion.unloading import reloaded
from dbcli.errors import BaseMissing, Unreachable, UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_z_image

PROMPTS = ["a photo of a sks dog in the snow", "", "a dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_z_image.write_folder(tmp_path_factory.mktemp("z") / "model")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    """Shared: its networks must not be changed."""
    return load_base(str(folder))


@pytest.fixture
def own(folder: Path) -> Base:
    return load_base(str(folder))


def test_its_first_and_last_layers_are_not_packed(own: Base) -> None:
    whole = dict(own.unet.named_modules())
    shrink(own.unet, "nf4", ends=Z_IMAGE.ends)
    left = [name for name, module in own.unet.named_modules() if type(module) is nn.Linear and whole[name] is module]
    assert {name for name in left if "adaLN" not in name} == {
        *("all_x_embedder.2-1", "cap_embedder.1", "t_embedder.mlp.0", "all_final_layer.2-1.linear")
    }
    assert isinstance(own.unet.get_submodule("layers.0.attention.to_q"), SmallLinear)


def test_a_folder_is_a_base_of_its_family_with_what_its_files_say(base: Base) -> None:
    assert base.family is Z_IMAGE and base.prediction_type == "flow"
    assert base.process.facts == {"prediction_type": "flow", "shift": 3.0}
    assert (base.resolution, base.vae_factor, base.step_px, base.latent_channels, base.max_tokens) == (
        64,
        4,
        8,
        16,
        512,
    )
    with reloaded(base.text_encoder):
        for name, network in tiny_z_image.networks().items():
            stored = network.state_dict()
            assert all(torch.equal(base.networks[name].state_dict()[key], tensor) for key, tensor in stored.items())


@torch.no_grad()
def test_prompts_are_encoded_as_by_diffusers(base: Base) -> None:
    theirs, _ = tiny_z_image.pipeline().encode_prompt(list(PROMPTS), do_classifier_free_guidance=False)
    found = embed_prompts(base, PROMPTS)
    assert found.mask is not None and found.mask.sum(1).tolist() == [len(one) for one in theirs]
    for states, mask, expected in zip(found.states, found.mask, theirs, strict=True):
        assert torch.equal(states[mask], expected)
        assert not states[~mask].any()


def test_no_negative_prompt_is_an_empty_one(base: Base) -> None:
    _, negative = embed_pairs(base, ["a dog"], [""])
    assert torch.equal(negative.states, embed_prompts(base, [""]).states)


@pytest.mark.parametrize(("guidance", "theirs"), [(1.0, 0.0), (4.0, 3.0)])
def test_images_equal_those_of_the_plain_pipeline(base: Base, guidance: float, theirs: float) -> None:
    # diffusers counts guidance from 0 here: v + g (v - v_0)
    how = {"num_inference_steps": 4, "guidance_scale": theirs, "height": 64, "width": 48, "output_type": "pt"}
    plain = tiny_z_image.pipeline()(PROMPTS[0], generator=torch.Generator().manual_seed(7), **how).images[0]
    settings = SamplingSettings("euler", 4, guidance, 0.0, 48, 64)
    (found,) = (image for _, image in sample_images(base, [SampleRequest(PROMPTS[0], 7)], settings))
    torch.testing.assert_close((found / 2 + 0.5).clamp(0, 1), plain, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_transformer_is_told_the_image_s_share_and_its_answer_is_turned_to_the_velocity() -> None:
    told: list[Any] = []

    def network(images: Any, shares: torch.Tensor, texts: Any, return_dict: bool) -> tuple[list[torch.Tensor]]:
        told.extend((images, shares, texts))
        return ([image * 2 for image in images],)

    latents, mask = torch.ones(2, 3, 4, 4), torch.tensor([[True, True, False], [True, False, False]])
    texts = Conditioning(torch.arange(6.0).view(2, 3, 1), mask=mask)
    found = denoise(network, latents, torch.tensor([0.25, 1.0]), texts, (32, 32))
    assert torch.equal(found, -2 * latents)
    assert told[0][0].shape == (3, 1, 4, 4) and told[1].tolist() == [0.75, 0.0]
    assert [text.flatten().tolist() for text in told[2]] == [[0.0, 1.0], [3.0]]


def test_latents_are_shifted_and_scaled_there_and_back(base: Base) -> None:
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        raw = base.vae.encode(image[None]).latent_dist.mean
        posterior = encode(base.vae, [image])
        assert torch.allclose(posterior.mean, (raw - 0.1159) * 0.3611)
        assert torch.allclose(decode(base.vae, posterior.mean), base.vae.decode(raw).sample, atol=1e-5)


def random_lora(own: Base) -> LoraWeights:
    options = LoraOptions(2, 4.0, ["to_q", "to_k", "to_v", "to_out.0", "w1"], ["q_proj"])
    add_lora(own.tunable, options)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in own.unet.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return attached_lora(own.tunable)


Write = Callable[[Path, LoraWeights, Base], list[str]]


def _kohya(path: Path, lora: LoraWeights, base: Base) -> list[str]:
    return write_kohya_lora(path, lora, base.family, dtype=torch.float32)


def _diffusers(path: Path, lora: LoraWeights, base: Base) -> list[str]:
    return write_diffusers_lora(path, lora, base, dtype=torch.float32)


@pytest.mark.parametrize(("write", "start"), [(_kohya, "diffusion_model."), (_diffusers, "transformer.")])
def test_a_lora_comes_back_to_the_bit_here_and_in_diffusers(
    base: Base, own: Base, folder: Path, tmp_path: Path, write: Write, start: str
) -> None:
    lora, path = for_diffusers(random_lora(own)), tmp_path / "l.safetensors"
    names = write(path, lora, base)
    assert len(names) >= 2 * 5 * 4 and all(name.startswith(start) for name in names)
    for again in (read_lora(path, load_base(str(folder))), lora_as_diffusers_reads_it(load_base(str(folder)), path)):
        assert again.part("transformer").keys() == lora.part("transformer").keys()
        assert misread_layers(again.part("transformer"), lora.part("transformer")) == []


def test_the_file_for_comfyui_names_every_layer_as_its_map_does(base: Base, own: Base, tmp_path: Path) -> None:
    """ComfyUI knows `diffusion_model.` before diffusers' names, dots kept, with the halves and alpha of kohya."""
    _kohya(tmp_path / "l.safetensors", for_diffusers(random_lora(own)), base)
    tensors = load_file(tmp_path / "l.safetensors")
    stems = {name.rsplit(".lora_", 1)[0].removesuffix(".alpha") for name in tensors}
    blocks = ["layers.0", "layers.1", "noise_refiner.0", "context_refiner.0"]
    layers = ["attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0", "feed_forward.w1"]
    assert stems == {f"diffusion_model.{block}.{layer}" for block in blocks for layer in layers}
    assert all(
        f"{stem}.{part}" in tensors for stem in stems for part in ("lora_down.weight", "lora_up.weight", "alpha")
    )
    # Nothing is left to what a reader makes of alpha.
    assert all(float(tensors[f"{stem}.alpha"]) == len(tensors[f"{stem}.lora_down.weight"]) for stem in stems)


def test_names_of_other_trainers_are_read(base: Base, tmp_path: Path) -> None:
    halves = {"lora_down.weight": torch.ones(2, 48), "lora_up.weight": torch.ones(48, 2)}
    for start in (
        "lora_unet_layers_0_attention_to_q",
        "diffusion_model.layers.0.attention.to_q",
        "layers.0.attention.to_q",
    ):
        save_file({f"{start}.{part}": tensor.clone() for part, tensor in halves.items()}, tmp_path / "l.safetensors")
        assert list(read_lora(tmp_path / "l.safetensors", base).part("transformer")) == ["layers.0.attention.to_q"]


ATTENTION = [f"layers.0.attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]


def whole_attention() -> dict[str, torch.Tensor]:
    """The halves and alpha of a block's attention by their published names: query, key and value in one, the last."""
    draw = torch.Generator().manual_seed(3)
    tensors = {}
    for layer, outputs in (("qkv", 3 * 48), ("out", 48)):
        tensors[f"{layer}.lora_down.weight"] = torch.randn(2, 48, generator=draw)
        tensors[f"{layer}.lora_up.weight"] = torch.randn(outputs, 2, generator=draw)
        tensors[f"{layer}.alpha"] = torch.tensor(1.0)
    return tensors


@pytest.mark.parametrize(
    "start", ["lora_unet_layers_0_attention_", "diffusion_model.layers.0.attention.", "layers.0.attention."]
)
def test_attention_as_it_was_published_is_divided(base: Base, tmp_path: Path, start: str) -> None:
    tensors, path = whole_attention(), tmp_path / "l.safetensors"
    save_file({start + name: tensor for name, tensor in tensors.items()}, path)
    layers = read_lora(path, base).part("transformer")
    assert set(layers) == set(ATTENTION)
    ups = [*tensors["qkv.lora_up.weight"].reshape(3, 48, 2), tensors["out.lora_up.weight"]]
    downs = [*[tensors["qkv.lora_down.weight"]] * 3, tensors["out.lora_down.weight"]]
    for name, up, down in zip(ATTENTION, ups, downs, strict=True):
        torch.testing.assert_close(layers[name].addition((48, 48)), up @ down / 2)


def test_attention_as_it_was_published_is_what_diffusers_makes_of_it(base: Base, own: Base, tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    save_file({f"lora_unet_layers_0_attention_{name}": tensor for name, tensor in whole_attention().items()}, path)
    ours, theirs = (lora.part("transformer") for lora in (read_lora(path, base), lora_as_diffusers_reads_it(own, path)))
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        torch.testing.assert_close(layer.addition((48, 48)), theirs[name].addition((48, 48)))


def test_a_layer_that_is_there_whole_and_divided_is_read_once(base: Base, tmp_path: Path) -> None:
    divided = {
        f"{name}.lora_{half}.weight": torch.ones(shape)
        for name in ATTENTION
        for half, shape in (("down", (1, 48)), ("up", (48, 1)))
    }
    whole = {f"layers.0.attention.{name}": tensor for name, tensor in whole_attention().items()}
    save_file(whole | divided, tmp_path / "l.safetensors")
    lora = read_lora(tmp_path / "l.safetensors", base)
    assert all(torch.equal(layer.addition((48, 48)), torch.ones(48, 48)) for layer in lora.layers)
    assert (len(lora.layers), lora.left_out) == (
        4,
        ["2 layers in their original form, which are there in diffusers' as well"],
    )


def test_magnitudes_of_outputs_are_divided_and_others_refused(base: Base, tmp_path: Path) -> None:
    lengths, path = torch.arange(3 * 48.0), tmp_path / "l.safetensors"
    tensors = {f"layers.0.attention.{name}": tensor for name, tensor in whole_attention().items() if "qkv" in name}
    save_file(tensors | {"layers.0.attention.qkv.dora_scale": lengths[:, None].clone()}, path)
    layers = read_lora(path, base).part("transformer").values()
    assert [layer.magnitude.tolist() for layer in layers if layer.magnitude is not None] == lengths.view(3, 48).tolist()
    save_file(tensors | {"layers.0.attention.qkv.dora_scale": torch.ones(1, 48)}, path)
    with pytest.raises(UnsupportedFile, match="along the inputs for layers.0.attention.qkv, which is 3 layers"):
        read_lora(path, base)


def test_first_and_last_layers_are_known_by_their_published_names(base: Base, tmp_path: Path) -> None:
    halves = {"lora_down.weight": torch.ones(1, 48), "lora_up.weight": torch.ones(16 * 4, 1)}
    start = "diffusion_model.final_layer.linear"
    save_file({f"{start}.{part}": tensor for part, tensor in halves.items()}, tmp_path / "l.safetensors")
    assert list(read_lora(tmp_path / "l.safetensors", base).part("transformer")) == ["all_final_layer.2-1.linear"]


def test_training_lowers_the_loss_and_its_target_is_noise_less_image(own: Base) -> None:
    trainable = add_lora(own.tunable, LoraOptions(4, 4.0, ["to_q", "to_k", "to_v", "to_out.0"], ["q_proj"]))
    mean = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    trainer = Trainer(
        own.denoiser,
        trainable,
        StepInputs(
            Posterior(mean, torch.zeros_like(mean)),
            FrozenPrompts(own, ["a sks dog", "a dog"], torch.device("cpu")),
            BatchSampler([SubjectData([[0]], [SentenceData([0], [0], (1,), 1)])], batch_size=1, seed=0),
        ),
        objective=Objective(own.process, prior_weight=0.5),
        optimisation=Optimisation(learning_rate=1e-2, gradient_clip=0.0),
        loop=LoopSettings(steps=12, precision="fp32"),
    )
    # Before the first step B is zero: the loss is that of the base, worked out once more.
    noise = normal_rows((16, 8, 8), 0, "noise", 0, [0, 1])
    levels = own.process.level(torch.Generator().manual_seed(0))
    assert 0 <= float(levels) < 1
    from dbcli.diffusion.families.process import level_rows

    shares = level_rows(own.process, 0, 0, [0, 1]).view(-1, 1, 1, 1)
    mixed = (1 - shares) * mean + shares * noise
    prompts = embed_prompts(own, ["a sks dog", "a dog"])
    with torch.no_grad():
        said = Denoiser(own.unet, denoise, 4)(mixed, shares.flatten(), prompts)
    errors = (said - (noise - mean)).square().flatten(1).mean(1)
    first = trainer.step().loss
    assert first == pytest.approx(float(errors[0] + 0.5 * errors[1]), rel=1e-5)
    losses = [trainer.step().loss for _ in range(11)]
    assert all(torch.isfinite(one).all() for one in trainable.tensors.values())
    assert any(bool(one.detach().abs().max() > 0) for name, one in trainable.tensors.items() if "lora_B" in name)
    assert len(losses) == 11


def test_shards_and_a_language_model_with_its_last_layer_are_the_same_base(base: Base, tmp_path: Path) -> None:
    folder = tiny_z_image.write_folder(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    # As published: the class that names words, whose layers lie in `model`, and a last layer of its own.
    text = folder / "text_encoder"
    tensors = {f"model.{key}": value for file in text.glob("*.safetensors") for key, value in load_file(file).items()}
    for file in text.glob("model*"):
        file.unlink()
    save_file(tensors | {"lm_head.weight": torch.zeros(2, 2)}, text / "model.safetensors")
    config = json.loads((text / "config.json").read_text(encoding="utf-8"))
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (text / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3ForCausalLM"]}), encoding="utf-8")
    again = load_base(str(folder))
    assert again.hash == base.hash
    assert torch.equal(embed_prompts(again, PROMPTS).states, embed_prompts(base, PROMPTS).states)
    next((folder / "transformer").glob("*-00002-*.safetensors")).unlink()
    with pytest.raises(BaseMissing, match="lacks 1 of"):
        judge_base(resolve_base(str(folder)), offline=True)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("transformer/config.json", {"siglip_feat_dim": 64}, "edits images"),
        ("transformer/config.json", {"_class_name": "FluxTransformer2DModel"}, "Flux"),
        ("transformer/config.json", {"n_layers": 100_000}, "n_layers is 100000"),
        ("model_index.json", {"_class_name": "ZImageInpaintPipeline"}, "inpainting"),
        ("model_index.json", {"_class_name": "Flux2KleinPipeline"}, "FLUX.2"),
        ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ("text_encoder/config.json", {"architectures": ["MistralModel"]}, "MistralModel"),
    ],
)
def test_what_is_another_model_is_refused_by_name_before_weights_are_read(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], said: str
) -> None:
    import shutil

    copied = Path(shutil.copytree(folder, tmp_path / "p"))
    config = json.loads((copied / file).read_text(encoding="utf-8"))
    (copied / file).write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises((UnsupportedFile, UnsafeFile), match=said) as refused:
        judge_base(resolve_base(str(copied)), offline=True)
    if isinstance(refused.value, UnsupportedFile) and "scheduler" not in file:
        assert "zimage" in str(refused.value.hint)


def test_weights_in_half_precision_stay_as_stored_and_give_what_float32_gives(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    copied = Path(shutil.copytree(folder, tmp_path / "half"))
    for name in ("text_encoder", "transformer"):
        for file in (copied / name).glob("*.safetensors"):
            save_file({key: tensor.to(torch.bfloat16) for key, tensor in load_file(file).items()}, file)
    order, settings = [SampleRequest("a dog", 1)], SamplingSettings("euler", 2, 3.0, 0.0, 64, 64)
    wide = load_base(str(copied))
    expected = next(image for _, image in sample_images(wide, order, settings))
    monkeypatch.setattr("dbcli.diffusion.bases.stored_layers.WIDENED_BELOW", 0)
    kept = load_base(str(copied))
    assert kept.unet.layers[0].attention.to_q.weight.dtype == torch.bfloat16
    with reloaded(kept.text_encoder):
        assert kept.text_encoder.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert torch.equal(next(image for _, image in sample_images(kept, order, settings)), expected)


def test_a_known_base_that_is_not_here_is_not_taken_for_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dbcli.diffusion.bases.hub.cached_folder", lambda *_: None)
    with pytest.raises(Unreachable, match="Tongyi-MAI/Z-Image"):
        load_meta_base("zimage", None)
    assert load_meta_base("sdxl", None).family.name == "sdxl"


def test_a_lora_changes_the_image(base: Base, own: Base) -> None:
    lora = random_lora(own)
    other = copy.copy(base)
    other.networks = {**base.networks, "transformer": copy.deepcopy(base.unet)}
    attach_lora(other.tunable, lora)
    settings = SamplingSettings("euler", 2, 1.0, 0.0, 64, 64)
    images = [
        next(image for _, image in sample_images(one, [SampleRequest("a dog", 1)], settings)) for one in (base, other)
    ]
    assert float((images[0] - images[1]).abs().max()) > 1e-3
