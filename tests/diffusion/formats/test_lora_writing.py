"""LoRA files: the tuned picture comes back with difference 0.0, through us and through diffusers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, attached_lora, lora_to_peft
from dbcli.diffusion.formats.lora_files import read_lora
from dbcli.diffusion.formats.lora_writing import write_diffusers_lora, write_kohya_lora
from dbcli.errors import BaseMissing, UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_models

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYWHERE = [*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv_shortcut"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def fresh() -> dict:
    return {name: copy.deepcopy(network) for name, network in tiny_models.networks().items()}


def draw(networks: dict) -> torch.Tensor:
    scheduler = tiny_models.narrow_configs()["scheduler"]
    return tiny_models.draw(networks, tiny_models.tokenizer(), scheduler)


def tuned(targets: list[str], *, rank: int, alpha: int, dora: bool = False) -> tuple[torch.Tensor, LoraWeights]:
    """A picture by networks with a LoRA inside, and that LoRA."""
    networks = fresh()
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, use_dora=dora)
    inject_adapter_in_model(config, networks["unet"], adapter_name="default")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TEXT)
    inject_adapter_in_model(config, networks["text_encoder"], adapter_name="default")
    generator = torch.Generator().manual_seed(1)
    for network in networks.values():
        for name, parameter in network.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
            if "magnitude" in name:
                parameter.data *= 1.2
    return draw(networks), attached_lora(tiny_models.tunable(networks))


@pytest.fixture(scope="module")
def example() -> tuple[torch.Tensor, LoraWeights]:
    """Alpha 8 at rank 4, on every kind of layer a LoRA can sit on."""
    return tuned(EVERYWHERE, rank=4, alpha=8)


def picture_with(lora: LoraWeights) -> torch.Tensor:
    networks = fresh()
    for part, (config, tensors) in lora_to_peft(lora, tiny_models.tunable(networks)).items():
        inject_adapter_in_model(LoraConfig(**config), networks[part], adapter_name="default")
        outcome = set_peft_model_state_dict(networks[part], tensors, adapter_name="default")
        assert not outcome.unexpected_keys
    return draw(networks)


def read(path: Path) -> LoraWeights:
    return read_lora(path, tiny_models.model())


def write(kind: str, path: Path, lora: LoraWeights, dtype: torch.dtype = torch.float32) -> Path:
    model = tiny_models.model()
    if kind == "kohya":
        write_kohya_lora(path, lora, model.family, dtype=dtype, metadata={"ss_network_dim": "4"})
    else:
        write_diffusers_lora(path, lora, model, dtype=dtype)
    return path


def through_diffusers(path: Path) -> torch.Tensor:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    networks = fresh()
    pipeline = StableDiffusionPipeline(
        **networks,
        tokenizer=tiny_models.tokenizer(),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    return draw(networks)


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
def test_a_round_trip_with_alpha_unlike_rank_differs_by_nothing(tmp_path: Path, example, kind: str) -> None:
    image, lora = example
    path = write(kind, tmp_path / "l.safetensors", lora)
    assert (image - draw(tiny_models.networks())).abs().max() > 0.1
    assert (picture_with(read(path)) - image).abs().max() == 0.0


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
def test_diffusers_draws_the_same_from_the_file(tmp_path: Path, example, kind: str) -> None:
    image, lora = example
    path = write(kind, tmp_path / "l.safetensors", lora)
    tiny_models.assert_same(through_diffusers(path), image)


@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
def test_dora_comes_back(tmp_path: Path, kind: str) -> None:
    image, lora = tuned([*ATTENTION, "proj_in"], rank=4, alpha=2, dora=True)
    assert any(layer.magnitude is not None for layer in lora.part("unet").values())
    path = write(kind, tmp_path / "l.safetensors", lora)
    assert (picture_with(read(path)) - image).abs().max() == 0.0
    if kind == "kohya":
        name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.dora_scale"
        assert load_file(str(path))[name].shape == (96, 1)


def test_kohya_names_and_shapes_are_those_its_tools_write(tmp_path: Path, example) -> None:
    tensors = load_file(str(write("kohya", tmp_path / "l.safetensors", example[1])))
    stem = "lora_te_text_model_encoder_layers_11_self_attn_q_proj"
    assert tensors[f"{stem}.lora_down.weight"].shape == (4, 64)
    assert tensors[f"{stem}.lora_up.weight"].shape == (64, 4)
    assert tensors[f"{stem}.alpha"].shape == ()
    assert tensors["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"].shape == (4, 96, 1, 1)
    attention = "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0"
    assert tensors[f"{attention}.lora_up.weight"].shape == (32, 4)
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj.alpha" in tensors
    assert {float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")} == {8.0}


def test_text_encoder_names_carry_the_prefix_other_tools_look_for(tmp_path: Path, example) -> None:
    names = load_file(str(write("diffusers", tmp_path / "l.safetensors", example[1])))
    text = [name for name in names if name.startswith("text_encoder.")]
    assert text
    assert all(name.startswith("text_encoder.text_model.encoder.layers.") for name in text)


def test_layers_of_different_rank_and_alpha_keep_theirs(tmp_path: Path) -> None:
    shapes = {"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": (96, 96)}
    shapes["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"] = (32, 32)
    layers = {
        name: LoraLayer(torch.randn(rank, inputs), torch.randn(outputs, rank), alpha)
        for (name, (outputs, inputs)), rank, alpha in zip(shapes.items(), (2, 5), (1.5, 7.0), strict=True)
    }
    lora = LoraWeights({"unet": layers})
    for kind in ("kohya", "diffusers"):
        back = read(write(kind, tmp_path / f"{kind}.safetensors", lora))
        assert {name: (layer.rank, layer.alpha) for name, layer in back.part("unet").items()} == {
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": (2, 1.5),
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k": (5, 7.0),
        }
        assert torch.equal(picture_with(back), picture_with(lora))


def test_half_precision_files_are_read_as_floats(tmp_path: Path, example) -> None:
    back = read(write("kohya", tmp_path / "l.safetensors", example[1], torch.float16))
    layer = next(iter(back.part("unet").values()))
    assert (layer.down.dtype, layer.alpha) == (torch.float32, 8.0)
    assert back.metadata["ss_network_dim"] == "4"


QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    ("names", "layer"),
    [
        (("unet.{q}.to_q.lora_A.weight", "unet.{q}.to_q.lora_B.weight"), "to_q"),
        (("unet.{q}.to_q.lora.down.weight", "unet.{q}.to_q.lora.up.weight"), "to_q"),
        (("unet.{q}.processor.to_q_lora.down.weight", "unet.{q}.processor.to_q_lora.up.weight"), "to_q"),
        (
            ("unet.{q}.processor.to_out_lora.down.weight", "unet.{q}.processor.to_out_lora.up.weight"),
            "to_out.0",
        ),
        (("{q}.processor.to_v_lora.down.weight", "{q}.processor.to_v_lora.up.weight"), "to_v"),
        (("base_model.model.{q}.to_q.lora_A.weight", "base_model.model.{q}.to_q.lora_B.weight"), "to_q"),
        (("lora_unet_{k}_to_q.lora_down.weight", "lora_unet_{k}_to_q.lora_up.weight"), "to_q"),
        (
            (
                "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
                "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_up.weight",
            ),
            "to_q",
        ),
    ],
)
def test_every_spelling_of_a_layer_is_found(tmp_path: Path, names: tuple[str, str], layer: str) -> None:
    down, up = (name.format(q=QUERY, k=QUERY.replace(".", "_")) for name in names)
    save_file({down: torch.randn(3, 96), up: torch.randn(96, 3)}, str(tmp_path / "l.safetensors"))
    found = read(tmp_path / "l.safetensors").part("unet")
    assert list(found) == [f"{QUERY}.{layer}"]
    assert found[f"{QUERY}.{layer}"].alpha == 3  # no alpha in the file: as large as the rank


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.{h}.weight",
        "text_encoder.text_model.encoder.layers.3.self_attn.to_q_lora.{h}.weight",
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj.lora_{h}.weight",
    ],
)
def test_every_spelling_of_a_text_layer_is_found(tmp_path: Path, name: str) -> None:
    tensors = {name.format(h="down"): torch.randn(2, 64), name.format(h="up"): torch.randn(64, 2)}
    save_file(tensors, str(tmp_path / "l.safetensors"))
    assert list(read(tmp_path / "l.safetensors").part("text_encoder")) == ["encoder.layers.3.self_attn.q_proj"]


GOOD = {
    "lora_down.weight": torch.ones(2, 96),
    "lora_up.weight": torch.ones(96, 2),
    "alpha": torch.tensor(2.0),
}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"lora_up.weight": None}, BaseMissing, "one of its halves"),
        ({"lora_up.weight": torch.ones(96, 3)}, UnsafeFile, "do not fit each other"),
        (
            {"lora_down.weight": torch.ones(2, 320), "lora_up.weight": torch.ones(320, 2)},
            UnsupportedFile,
            "another base",
        ),
        ({"lora_down.weight": torch.ones(2, 96, 3, 3)}, UnsafeFile, "kernel"),
        ({"alpha": torch.tensor(float("nan"))}, UnsafeFile, "alpha"),
        ({"alpha": torch.ones(3)}, UnsafeFile, "alpha"),
        ({"dora_scale": torch.ones(7)}, UnsafeFile, "magnitudes"),
        ({"lora_mid.weight": torch.ones(2, 2, 3, 3)}, UnsafeFile, "kernel"),
        ({"lora_mid.weight": torch.ones(3, 3, 3, 3)}, UnsafeFile, "core"),
        ({"hada_w1_a": torch.ones(2, 2)}, UnsafeFile, "of several kinds at once"),
        ({"oft_blocks": torch.ones(2, 2, 2)}, UnsupportedFile, "an OFT"),
        ({"else": torch.ones(2, 2)}, UnsupportedFile, "not part of a LoRA"),
    ],
)
def test_layers_that_do_not_hold_are_refused(tmp_path: Path, changes, kind, words: str) -> None:
    stem = f"lora_unet_{QUERY.replace('.', '_')}_to_q."
    tensors = {stem + name: tensor for name, tensor in {**GOOD, **changes}.items() if tensor is not None}
    save_file(tensors, str(tmp_path / "odd.safetensors"))
    with pytest.raises(kind, match=words) as caught:
        read(tmp_path / "odd.safetensors")
    assert "odd.safetensors" in caught.value.message
