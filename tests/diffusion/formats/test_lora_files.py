"""LoRA files of other programs: each changes the weights as the program that made it says, or is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from dbcli.diffusion.adapters.mix import layer_change, merge_loras
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.formats.adapter_config import OF_TRAINING, READ
from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, lora_to_peft
from dbcli.diffusion.formats.lora_files import read_lora
from dbcli.diffusion.formats.lora_writing import write_kohya_lora
from dbcli.errors import BaseMissing, DreamboothError, UnsafeFile, UnsupportedFile
from tests.diffusion import tiny_models

BLOCK = "mid_block.attentions.0.transformer_blocks.0"
QUERY, KEY = f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k"
TEXT_QUERY = "encoder.layers.3.self_attn.q_proj"
KOHYA = f"lora_unet_{QUERY.replace('.', '_')}"


def read(path: Path) -> LoraWeights:
    return read_lora(path, tiny_models.model())


def written(tmp_path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    path = tmp_path / "odd.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata or None)
    return path


def halves(stem: str, outputs: int = 96, inputs: int = 96, rank: int = 4, spelling: str = "lora") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(len(stem) + rank)
    names = {"lora": ("lora_down", "lora_up"), "peft": ("lora_A", "lora_B")}[spelling]
    return {
        f"{stem}.{names[0]}.weight": torch.randn(rank, inputs, generator=generator) * 0.3,
        f"{stem}.{names[1]}.weight": torch.randn(outputs, rank, generator=generator) * 0.3,
    }


def saved_by_diffusers(folder: Path, config: LoraConfig, text_config: LoraConfig | None = None) -> Path:
    """A LoRA of random values as diffusers' own training scripts save it, with the adapter's metadata."""
    from diffusers.training_utils import _collate_lora_metadata

    networks = {name: copy.deepcopy(network) for name, network in tiny_models.networks().items()}
    layers, modules = {}, {}
    for part, one in (("unet", config), ("text_encoder", text_config)):
        if one is not None:
            inject_adapter_in_model(one, networks[part], adapter_name="default")
            generator = torch.Generator().manual_seed(3)
            for name, parameter in networks[part].named_parameters():
                if "lora_" in name:
                    parameter.data += torch.randn(parameter.shape, generator=generator) * 0.2
            layers[f"{part}_lora_layers"] = get_peft_model_state_dict(networks[part])
            modules[part] = networks[part]
    StableDiffusionPipeline.save_lora_weights(folder, **layers, **_collate_lora_metadata(modules))
    return folder / "pytorch_lora_weights.safetensors"


def fused_by_diffusers(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Every weight after diffusers' own loader has taken the file in."""
    networks = {name: copy.deepcopy(network) for name, network in tiny_models.networks().items()}
    pipeline = StableDiffusionPipeline(
        **networks, tokenizer=tiny_models.tokenizer(), scheduler=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return {part: networks[part].state_dict() for part in ("unet", "text_encoder")}


def merged(lora: LoraWeights) -> dict[str, dict[str, torch.Tensor]]:
    networks = {name: copy.deepcopy(tiny_models.networks()[name]) for name in ("unet", "text_encoder")}
    merge_loras(networks, [(lora, 1.0)])
    return {part: network.state_dict() for part, network in networks.items()}


def assert_as_diffusers(path: Path) -> None:
    found, expected = merged(read(path)), fused_by_diffusers(path)
    plain = {part: tiny_models.networks()[part].state_dict() for part in found}
    changed = 0
    for part in found:
        for name, tensor in expected[part].items():
            torch.testing.assert_close(found[part][name], tensor, rtol=0, atol=2e-6, msg=f"{part}.{name}")
            changed += not torch.equal(tensor, plain[part][name])
    assert changed


CONFIGS = {
    "rank-stabilised, ranks by ending": {"lora_alpha": 3, "use_rslora": True, "rank_pattern": {"attn2.to_k": 9}},
    "alpha by regular expressions": {"lora_alpha": 8, "alpha_pattern": {r"mid_block\..*\.to_[kv]": 2, "attn1.to_q": 1}},
    "DoRA with layers excluded": {"use_dora": True, "lora_alpha": 8, "exclude_modules": ["attn2.to_q"]},
}


@pytest.mark.filterwarnings("ignore:You have passed exclude_modules:UserWarning:peft")
@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
def test_the_adapters_metadata_counts_as_for_diffusers(tmp_path: Path, fields: dict[str, Any]) -> None:
    config = LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], **fields)
    text = None if "use_dora" in fields else LoraConfig(r=4, lora_alpha=2, target_modules=["q_proj"])
    assert_as_diffusers(saved_by_diffusers(tmp_path, config, text))


def test_rank_stabilised_alpha_is_divided_by_the_root_of_the_rank(tmp_path: Path) -> None:
    metadata = json.dumps({"unet.r": 4, "unet.lora_alpha": 2.0, "unet.use_rslora": True})
    layer = read(written(tmp_path, halves(f"unet.{QUERY}", spelling="peft"), lora_adapter_metadata=metadata)).part(
        "unet"
    )[QUERY]
    assert layer.alpha / layer.rank == 2.0 / 4**0.5


def test_a_pattern_that_older_libraries_wrote_with_text_model_is_heard(tmp_path: Path) -> None:
    fields = {"r": 4, "lora_alpha": 4, "alpha_pattern": {f"text_model.{TEXT_QUERY}": 2}}
    metadata = json.dumps({f"text_encoder.{name}": value for name, value in fields.items()})
    tensors = halves(f"text_encoder.text_model.{TEXT_QUERY}", 64, 64, spelling="peft")
    assert read(written(tmp_path, tensors, lora_adapter_metadata=metadata)).part("text_encoder")[TEXT_QUERY].alpha == 2


def test_metadata_of_one_network_alone_needs_no_prefix(tmp_path: Path) -> None:
    metadata = json.dumps({"r": 4, "lora_alpha": 12})
    layers = read(written(tmp_path, halves(QUERY, spelling="peft"), lora_adapter_metadata=metadata)).part("unet")
    assert layers[QUERY].alpha == 12


def test_what_lies_beside_pefts_own_file_is_read(tmp_path: Path) -> None:
    tensors = halves(f"base_model.model.{TEXT_QUERY}", 64, 64, spelling="peft")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read(tmp_path / "adapter_model.safetensors").part("text_encoder")[TEXT_QUERY].alpha == 6 * 2


# Excluded layers are not in the file: PEFT wonders that it finds none to leave out, or that one of its own is missing.
@pytest.mark.filterwarnings("ignore:You have passed exclude_modules:UserWarning:peft")
@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning:peft")
def test_a_text_layer_that_the_metadata_excludes_is_left_out_and_named(tmp_path: Path) -> None:
    """As transformers' loader leaves it out; diffusers' own loader of UNets takes whatever is in the file."""
    kept, excluded = TEXT_QUERY, TEXT_QUERY.replace(".3.", ".4.")
    fields = {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj"], "exclude_modules": ["4.self_attn.q_proj"]}
    parts = ("unet", "text_encoder")
    metadata = json.dumps({f"{part}.{name}": value for part in parts for name, value in fields.items()})
    tensors = halves(f"unet.{QUERY}", spelling="peft")
    for layer in (kept, excluded):
        tensors |= halves(f"text_encoder.text_model.{layer}", 64, 64, spelling="peft")
    path = written(tmp_path, tensors, lora_adapter_metadata=metadata)
    lora = read(path)
    assert (list(lora.part("unet")), list(lora.part("text_encoder"))) == ([QUERY], [kept])
    assert any(excluded in line for line in lora.left_out)
    assert_as_diffusers(path)


REFUSED = {
    "modules_to_save": ["conv_out"],
    "bias": "all",
    "init_lora_weights": "pissa",
    "layer_replication": [[0, 2]],
    "trainable_token_indices": [1],
    "target_parameters": ["weight"],
    "lora_bias": True,
    "use_qalora": True,
    "alora_invocation_tokens": [3],
    "peft_type": "OFT",
    "a_field_of_tomorrow": 3,
}


@pytest.mark.parametrize(("field", "value"), REFUSED.items())
def test_a_field_that_a_plain_lora_cannot_hold_is_refused_by_its_name(tmp_path: Path, field: str, value: Any) -> None:
    metadata = json.dumps({"unet.r": 4, "unet.lora_alpha": 4, f"unet.{field}": value})
    path = written(tmp_path, halves(f"unet.{QUERY}", spelling="peft"), lora_adapter_metadata=metadata)
    with pytest.raises(UnsupportedFile, match=field) as caught:
        read(path)
    assert caught.value.exit_code == 6


def test_every_field_that_peft_knows_is_read_passed_over_or_refused() -> None:
    refused = {
        "modules_to_save", "megatron_config", "trainable_token_indices", "layer_replication", "lora_bias",
        "alora_invocation_tokens", "monteclora_config", "target_parameters", "use_bdlora", "use_qalora",
        "arrow_config", "kasa_config",
    }  # fmt: skip
    known = {field.name for config in (LoraConfig, LoKrConfig, LoHaConfig) for field in dataclasses.fields(config)}
    assert known == READ | OF_TRAINING | refused


@pytest.mark.parametrize(
    ("metadata", "kind", "words"),
    [
        ("{", UnsafeFile, "not JSON"),
        ("[]", UnsafeFile, "not a table"),
        (json.dumps({"unet.r": 8, "unet.lora_alpha": 8}), UnsafeFile, "rank 8"),
        (json.dumps({"unet.r": 4, "unet.lora_alpha": "four"}), UnsafeFile, "lora_alpha"),
        (json.dumps({"unet.r": 4, "unet.lora_alpha": 4, "unet.alpha_pattern": {"(": 2}}), UnsafeFile, "alpha_pattern"),
        (json.dumps({"unet.r": 4, "unet.lora_alpha": 4, "unet.use_dora": True}), BaseMissing, "lacks DoRA"),
    ],
)
def test_metadata_that_contradicts_the_file_is_told(tmp_path: Path, metadata: str, kind: Any, words: str) -> None:
    path = written(tmp_path, halves(f"unet.{QUERY}", spelling="peft"), lora_adapter_metadata=metadata)
    with pytest.raises(kind, match=words):
        read(path)


def test_a_scale_stands_for_alpha_by_rank(tmp_path: Path) -> None:
    layer = read(written(tmp_path, halves(KOHYA) | {f"{KOHYA}.scale": torch.tensor(0.25)})).part("unet")[QUERY]
    assert layer.alpha / layer.rank == 0.25


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floats_are_read_as_their_values(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in halves(KOHYA).items()}
    layer = read(written(tmp_path, tensors)).part("unet")[QUERY]
    assert torch.equal(layer.down, tensors[f"{KOHYA}.lora_down.weight"].float())
    assert layer.down.dtype == torch.float32


# DoRA, after LyCORIS (`weight_decompose`): W' = (W + dW) · m / |W + dW|, the length over all but one side.
def changed(shape: tuple[int, ...], magnitude: torch.Tensor) -> torch.Tensor:
    weight = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)
    down, up = torch.ones(1, *shape[1:]), torch.ones(shape[0], 1, *(1 for _ in shape[2:]))
    return weight + layer_change(LoraLayer(down, up, 1.0, magnitude, by_input=True), weight)


def test_lengths_along_the_inputs_scale_columns() -> None:
    # W + dW = [[2, 3], [4, 5]]: columns of length sqrt(20) and sqrt(34).
    expected = torch.tensor([[2 * 7 / 20**0.5, 3 * 5 / 34**0.5], [4 * 7 / 20**0.5, 5 * 5 / 34**0.5]])
    torch.testing.assert_close(changed((2, 2), torch.tensor([7.0, 5.0])), expected)


def test_lengths_along_the_inputs_of_a_convolution_take_its_kernel_in() -> None:
    # One input, two outputs, a 1 x 2 kernel: 2, 3, 4, 5 are one length, sqrt(54).
    expected = torch.tensor([2.0, 3.0, 4.0, 5.0]).reshape(2, 1, 1, 2) * 3 / 54**0.5
    torch.testing.assert_close(changed((2, 1, 1, 2), torch.tensor([3.0])), expected)


@pytest.mark.parametrize(("shape", "by_input"), [((96, 1), False), ((1, 96), True)])
def test_the_sides_of_a_dora_scale_tell_which_lengths_they_are(tmp_path: Path, shape: Any, by_input: bool) -> None:
    lengths = torch.rand(shape) + 1
    lora = read(written(tmp_path, halves(KOHYA) | {f"{KOHYA}.dora_scale": lengths}))
    assert (lora.part("unet")[QUERY].by_input, lora.by_input) == (by_input, by_input)
    assert torch.equal(lora.part("unet")[QUERY].magnitude, lengths.flatten())
    weight = tiny_models.networks()["unet"].get_submodule(QUERY).weight
    turned = weight + lora.part("unet")[QUERY].up @ lora.part("unet")[QUERY].down
    expected = turned * lengths / turned.norm(dim=0 if by_input else 1, keepdim=True)
    torch.testing.assert_close(merged(lora)["unet"][f"{QUERY}.weight"], expected.detach(), rtol=0, atol=1e-6)
    write_kohya_lora(tmp_path / "again.safetensors", lora, SD, dtype=torch.float32)
    assert load_file(tmp_path / "again.safetensors")[f"{KOHYA}.dora_scale"].shape == shape
    if by_input:
        with pytest.raises(UnsupportedFile, match="along the inputs"):
            lora_to_peft(lora, tiny_models.networks())


def test_lengths_along_the_inputs_of_an_oblong_layer_are_read(tmp_path: Path) -> None:
    stem = f"lora_unet_{KEY.replace('.', '_')}"
    lora = read(written(tmp_path, halves(stem, 96, 64) | {f"{stem}.dora_scale": torch.ones(1, 64)}))
    assert lora.part("unet")[KEY].by_input


def test_a_tucker_core_is_multiplied_in(tmp_path: Path) -> None:
    stem, module = "lora_unet_mid_block_resnets_0_conv1", "mid_block.resnets.0.conv1"
    down, up, core = torch.randn(3, 96, 1, 1), torch.randn(96, 2, 1, 1), torch.randn(2, 3, 3, 3)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "lora_mid.weight": core, "alpha": torch.tensor(2.0)}
    layer = read(written(tmp_path, {f"{stem}.{name}": tensor for name, tensor in tensors.items()})).part("unet")[module]
    expected = torch.nn.functional.conv2d(torch.eye(96)[:, :, None, None], down)
    expected = torch.einsum("oa,abkl,bi->oikl", up[:, :, 0, 0], core, down[:, :, 0, 0])
    found = layer_change(layer, tiny_models.networks()["unet"].get_submodule(module).weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


COMFY = {
    "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q": ("unet", QUERY, 96, 96),
    "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k": (
        "unet",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
        32,
        64,
    ),
    "diffusion_model.time_embed.0": ("unet", "time_embedding.linear_1", 128, 32),
    f"text_encoders.clip_l.transformer.text_model.{TEXT_QUERY}": ("text_encoder", TEXT_QUERY, 64, 64),
    "lycoris_mid_block_attentions_0_transformer_blocks_0_attn1_to_q": ("unet", QUERY, 96, 96),
}


@pytest.mark.parametrize("spelling", ["lora", "peft"])
@pytest.mark.parametrize(("stem", "layer"), COMFY.items())
def test_the_names_of_comfyui_and_simpletuner_are_mapped(
    tmp_path: Path, stem: str, layer: tuple[str, str, int, int], spelling: str
) -> None:
    part, module, outputs, inputs = layer
    tensors = halves(stem, outputs, inputs, spelling=spelling)
    # What ComfyUI's extraction writes of parts that were not trained.
    tensors |= {f"{stem}.diff_b": torch.zeros(outputs), "diffusion_model.out.0.diff": torch.zeros(32)}
    tensors |= {"diffusion_model.label.lora_down.weight": torch.zeros(4, 9), "v_pred": torch.zeros(0)}
    tensors |= {"diffusion_model.label.lora_up.weight": torch.ones(3, 4)}
    lora = read(written(tmp_path, tensors))
    assert list(lora.part(part)) == [module]
    assert lora.left_out == ["2 differences that are zero", "the layer label, which is zero"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora_unet_mid_block_resnets_0_norm1.w_norm", "changes norms too"),
        ("lora_unet_mid_block_resnets_0_norm1.b_norm", "changes norms too"),
        (f"{KOHYA}.diff_b", "changes biases too"),
        ("lora_unet_conv_in.diff", "changes weights too"),
        (f"unet.{QUERY}.lora_B.bias", "changes biases too"),
        (f"{KOHYA}.on_input", r"\(IA\)³"),
        (f"{KOHYA}.b1.weight", "GLoRA"),
        (f"{KOHYA}.oft_blocks", "OFT"),
        (f"{KOHYA}.lambda_layer", "T-LoRA"),
    ],
)
def test_beside_good_layers_what_would_be_missed_is_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UnsupportedFile, match=words):
        read(written(tmp_path, halves(KOHYA) | {name: torch.ones(4)}))


def test_parts_that_are_zero_are_left_out_and_counted(tmp_path: Path) -> None:
    names = [f"{KOHYA}.diff_b", "lora_unet_mid_block_resnets_0_norm1.w_norm"]
    lora = read(written(tmp_path, halves(KOHYA) | {name: torch.zeros(4) for name in names}))
    assert (list(lora.part("unet")), lora.left_out) == ([QUERY], ["2 differences that are zero"])


@pytest.mark.parametrize(
    ("ending", "file_name"),
    [("string_to_param.*", "sks"), ("string_to_param.*", "my.word"), ("emb_params", "sks"), ("clip_l", "sks")],
)
def test_bundled_embeddings_are_read_with_their_words(tmp_path: Path, ending: str, file_name: str) -> None:
    vectors = torch.randn(2, 64)
    lora = read(written(tmp_path, halves(KOHYA) | {f"bundle_emb.{file_name}.{ending}": vectors.half()}))
    assert [one.word for one in lora.words] == [file_name]
    torch.testing.assert_close(lora.words[0].vectors, vectors, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 64), (), (1, 2, 64)])
def test_a_bundled_embedding_that_is_no_table_of_vectors_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = written(tmp_path, halves(KOHYA) | {"bundle_emb.sks.emb_params": torch.ones(shape)})
    with pytest.raises(UnsafeFile, match="emb_params|vectors"):
        read(path)


@pytest.mark.parametrize(
    ("down", "up", "core"),
    [
        ((3,), (96, 2), (2, 3, 3, 3)),
        ((3, 96), (96,), (2, 3, 3, 3)),
        ((), (), (2, 3, 3, 3)),
        ((0, 96, 1, 1), (96, 2, 1, 1), (2, 3, 3, 3)),
        ((3, 96, 3, 3), (96, 2, 1, 1), (2, 3, 3, 3)),
        ((3, 96, 1, 1), (96, 2, 1, 1), (2, 3)),
        ((0, 96, 1, 1), (96, 0, 1, 1), (0, 0, 3, 3)),
    ],
)
def test_a_tucker_core_that_does_not_fit_its_halves_is_refused(
    tmp_path: Path, down: tuple[int, ...], up: tuple[int, ...], core: tuple[int, ...]
) -> None:
    shapes = {"lora_down.weight": down, "lora_up.weight": up, "lora_mid.weight": core}
    stem = "lora_unet_mid_block_resnets_0_conv1"
    path = written(tmp_path, {f"{stem}.{name}": torch.ones(shape) for name, shape in shapes.items()})
    with pytest.raises(UnsafeFile, match="fit"):
        read(path)


@pytest.mark.parametrize(
    ("tensors", "kind", "words"),
    [
        ({"lora_te2_text_model_x.lora_down.weight": torch.ones(1, 1)}, UnsupportedFile, "Stable Diffusion XL"),
        ({"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": torch.ones(1, 1)}, UnsupportedFile, "Flux"),
        ({"lora_unet_joint_blocks_0_x_block.lora_down.weight": torch.ones(1, 1)}, UnsupportedFile, "Diffusion 3"),
        ({"diffusion_model.layers.0.attention.to_q.lora_A.weight": torch.ones(1, 1)}, UnsupportedFile, "Z-Image"),
        ({"lora_unet_nowhere.lora_down.weight": torch.ones(1, 1)}, UnsupportedFile, "this base does not have"),
        ({"weight": torch.ones(1, 1)}, UnsupportedFile, "not a LoRA"),
        ({"emb_params": torch.ones(1, 64)}, UnsupportedFile, "embedding"),
        ({"first_stage_model.decoder.conv_in.weight": torch.ones(1, 1)}, UnsupportedFile, "VAE"),
        ({}, BaseMissing, "no layers"),
    ],
)
def test_a_file_of_another_kind_or_family_is_named(tmp_path: Path, tensors: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        read(written(tmp_path, tensors))


@pytest.mark.parametrize("content", [[torch.ones(4, 96), torch.ones(96, 4)], {"unet:0:up": torch.ones(4, 4)}])
def test_the_first_trainers_files_are_named_without_running_them(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "lora_weight.pt")
    with pytest.raises(DreamboothError, match="first trainers") as caught:
        read(tmp_path / "lora_weight.pt")
    assert caught.value.exit_code == 6
