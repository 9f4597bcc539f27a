"""A file's kind and family, from names that the programs of each kind write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dbcli.diffusion.files.file_kinds import FileKind, kind_of
from dbcli.diffusion.files.model_files import open_weights

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def kind(tmp_path: Path, *names: str, shape: tuple[int, ...] = (2, 2), **metadata: str) -> FileKind:
    tensors = {name: torch.zeros(shape) for name in names}
    save_file(tensors, tmp_path / "file.safetensors", metadata=metadata)
    return kind_of(open_weights(tmp_path / "file.safetensors"))


@pytest.mark.parametrize(
    ("parts", "adapter", "title"),
    [
        (["lora_down.weight", "lora_up.weight", "alpha"], "LoRA", "a LoRA for Stable Diffusion"),
        (["lora_down.weight", "lora_up.weight", "dora_scale"], "DoRA", "a DoRA for Stable Diffusion"),
        (["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"], "LoHa", "a LoHa for Stable Diffusion"),
        (["lokr_w1", "lokr_w2_a", "lokr_w2_b", "dora_scale"], "LoKr", "a LoKr for Stable Diffusion"),
        (["a1.weight", "a2.weight", "b1.weight", "b2.weight", "alpha"], "GLoRA", "a GLoRA for Stable Diffusion"),
        (["weight", "on_input"], "(IA)³", "an (IA)³ for Stable Diffusion"),
        (["q_layer.weight", "p_layer.weight", "lambda_layer"], "T-LoRA", "a T-LoRA for Stable Diffusion"),
        (["oft_blocks", "alpha"], "OFT", "an OFT for Stable Diffusion"),
        (["diff", "diff_b"], "weight differences", "a file of weight differences (.diff) for Stable Diffusion"),
        (["w_norm", "b_norm"], "norm differences", "a file of norm differences (.w_norm) for Stable Diffusion"),
        (["lora_down.weight", "lora_up.weight", "w_norm", "diff_b"], "LoRA", "a LoRA for Stable Diffusion"),
    ],
)
def test_an_adapter_is_told_by_its_parts(tmp_path: Path, parts: list[str], adapter: str, title: str) -> None:
    found = kind(tmp_path, *(f"{LAYER}.{part}" for part in parts))
    assert (found.kind, found.adapter, found.title) == ("adapter", adapter, title)


PEFTS = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["base_model.vera_A", "base_model.vera_B", f"{PEFTS}.vera_lambda_b"], "a VeRA for Stable Diffusion"),
        ([f"{PEFTS}.fourierft_spectrum"], "a PEFT adapter that is not a LoRA for Stable Diffusion"),
        ([f"{PEFTS}.bone_block"], "a PEFT adapter that is not a LoRA for Stable Diffusion"),
        ([f"{PEFTS}.ia3_l"], "an (IA)³ for Stable Diffusion"),
    ],
)
def test_an_adapter_of_peft_is_never_taken_for_an_embedding(tmp_path: Path, names: list[str], title: str) -> None:
    found = kind(tmp_path, *names)
    assert (found.kind, found.title) == ("adapter", title)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "Stable Diffusion XL"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.lora_down.weight", "Stable Diffusion XL"),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.lora_A.weight", "Stable Diffusion XL"),
        ("lora_unet_joint_blocks_0_context_block_attn_qkv.lora_down.weight", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight", "Stable Diffusion 3"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux"),
        ("diffusion_model.layers.0.attention.to_q.lora_A.weight", "Z-Image"),
        ("transformer.layers.0.feed_forward.w1.lora_A.weight", "Z-Image"),
        ("transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", "Qwen-Image"),
        ("diffusion_model.blocks.0.cross_attn.k.lora_A.weight", "Wan"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "Stable Diffusion"),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight", "Stable Diffusion"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight", "Stable Diffusion"),
    ],
)
def test_the_family_of_an_adapter_is_told_by_its_layers(tmp_path: Path, name: str, family: str) -> None:
    found = kind(tmp_path, name)
    assert (found.kind, found.adapter, found.made_for) == ("adapter", "LoRA", family)


def test_where_layers_are_called_alike_the_metadata_tells_the_family(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"
    assert kind(tmp_path, name, ss_base_model_version="sdxl_base_v1-0").made_for == "Stable Diffusion XL"
    assert kind(tmp_path, name, **{"modelspec.architecture": "stable-diffusion-v1/lora"}).made_for == "Stable Diffusion"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x"], ("checkpoint", "Stable Diffusion")),
        (["model.diffusion_model.label_emb.0.0.weight"], ("checkpoint", "Stable Diffusion XL")),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], ("checkpoint", "Stable Diffusion 3")),
        (["double_blocks.0.img_attn.qkv.weight"], ("unet", "Flux")),
        (["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"], ("unet", "Stable Diffusion")),
        (["encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight"], ("vae", "")),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], ("text-encoder", "")),
        (["control_model.input_blocks.0.0.weight"], ("controlnet", "Stable Diffusion")),
        (["emb_params"], ("embedding", "")),
        (["<cat-toy>"], ("embedding", "")),
        (["clip_l", "clip_g"], ("embedding", "Stable Diffusion XL")),
        (["weight"], ("unknown", "")),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, names: list[str], expected: tuple[str, str]) -> None:
    found = kind(tmp_path, *names)
    assert (found.kind, found.made_for) == expected


def test_a_boft_has_one_dimension_more_than_an_oft(tmp_path: Path) -> None:
    names = (f"{LAYER}.oft_blocks", f"{LAYER}.alpha")
    assert (kind(tmp_path, *names, shape=(2, 4, 4)).adapter, kind(tmp_path, *names, shape=(3, 2, 4, 4)).adapter) == (
        "OFT",
        "BOFT",
    )


def test_an_adapter_of_the_first_trainers_is_one(tmp_path: Path) -> None:
    assert kind(tmp_path, "unet:0:up", "unet:0:down").title.startswith("a LoRA from the first trainers")
