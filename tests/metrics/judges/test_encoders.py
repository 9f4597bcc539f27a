"""Judges loaded from files of every form: timm, open_clip, transformers, embedded."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from dbcli.errors import JudgeMissing, UsageError
from dbcli.metrics.judges.embedded import middle_extremes
from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.judges.loading import load_judge, load_judges
from tests.metrics.judge_makers import EMBEDDED_SD, SHAPE

PICTURES = [Image.new("RGB", (40, 30), "teal"), Image.linear_gradient("L").resize((50, 70))]


def half(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.half().contiguous() for name, value in model.state_dict().items()}


def assert_unit_rows(features: torch.Tensor, width: int) -> None:
    assert features.dtype == torch.float32
    assert features.shape == (2, width)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2), atol=1e-5, rtol=0)


def test_dino_is_vit_s_16_and_its_feature_the_class_token(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224.dino", pretrained=False)
    torch.save(model.state_dict(), tmp_path / "dino.pth")
    judge = load_judge("dino", source=str(tmp_path / "dino.pth"), offline=True)
    features = judge.encode_images(PICTURES)
    assert_unit_rows(features, 384)
    with torch.inference_mode():
        expected = model.eval()(judge.encoder.preprocessing(PICTURES))
    torch.testing.assert_close(features, torch.nn.functional.normalize(expected, dim=1), atol=1e-5, rtol=0)
    described = judge.describe()
    assert described["model"] == "vit_small_patch16_224.dino"
    assert described["preprocessing"]["resize_shorter_side_px"] == 256
    assert described["preprocessing"]["crop"] == "centre 224 px"


def test_clip_is_vit_b_32_with_quickgelu(tmp_path: Path) -> None:
    model = open_clip.create_model("ViT-B-32-quickgelu", load_weights=False)
    save_file(half(model), tmp_path / "clip.safetensors")
    judge = load_judge("clip", source=str(tmp_path / "clip.safetensors"), offline=True)
    del model
    assert_unit_rows(judge.encode_images(PICTURES), 512)
    assert_unit_rows(judge.encode_texts(["a dog", "a vase in the snow"]), 512)
    assert judge.describe()["model"] == "ViT-B-32-quickgelu"
    assert judge.describe()["max_tokens"] == 77
    # begin, 75 words of one token each, end: 77
    assert judge.too_long(["dog " * 75, "dog " * 76]) == ["dog " * 76]
    assert "224" in judge.describe()["preprocessing"]["crop"]


def test_pictures_are_prepared_as_open_clip_prepares_them() -> None:
    from dbcli.metrics.judges.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing

    theirs = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=224), is_train=False)
    ours = Preprocessing(224, 224, CLIP_MEAN, CLIP_STD)
    for size in ((300, 201), (201, 333), (224, 224), (97, 100)):
        image = Image.linear_gradient("L").rotate(30).resize(size).convert("RGB")
        torch.testing.assert_close(ours([image])[0], theirs(image), atol=1e-6, rtol=0)


def test_transparency_is_laid_on_white() -> None:
    from dbcli.metrics.judges.preprocessing import as_rgb

    assert as_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_an_open_clip_folder_brings_its_own_shape(tmp_path: Path) -> None:
    shape = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": shape, "preprocess_cfg": {}}))
    model = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    save_file(half(model), tmp_path / "open_clip_model.safetensors")
    judge = load_judge("clip-l", source=str(tmp_path), offline=True)
    assert_unit_rows(judge.encode_images(PICTURES), 16)
    assert_unit_rows(judge.encode_texts(["a dog", "a vase"]), 16)
    assert judge.describe()["preprocessing"]["crop"] == "centre 32 px"


def test_a_timm_folder_brings_its_own_shape(tmp_path: Path) -> None:
    settings = {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 2}
    config = {"architecture": "vit_tiny_patch16_224", "model_args": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=3, **settings)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert_unit_rows(load_judge("dino", source=str(tmp_path), offline=True).encode_images(PICTURES), 24)


def test_folders_saved_by_transformers_are_read(tmp_path: Path) -> None:
    vision = {**SHAPE, "image_size": 32, "patch_size": 16}
    text = {**SHAPE, "max_position_embeddings": 77, "eos_token_id": 49407, "bos_token_id": 49406}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    transformers.CLIPTokenizer.from_pretrained(EMBEDDED_SD / "tokenizer").save_pretrained(tmp_path / "clip")
    clip = load_judge("clip", source=str(tmp_path / "clip"), offline=True)
    assert_unit_rows(clip.encode_images(PICTURES), 16)
    texts = clip.encode_texts(["a dog", "a vase"])
    assert_unit_rows(texts, 16)
    model = transformers.CLIPModel.from_pretrained(tmp_path / "clip").eval()
    with torch.inference_mode():
        pixels = clip.encoder.preprocessing(PICTURES)
        found = model(pixel_values=pixels, input_ids=torch.tensor([[49406, 320, 1929, 49407]]))
    torch.testing.assert_close(clip.encode_images(PICTURES), found.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts[:1], found.text_embeds, atol=1e-5, rtol=0)
    transformers.ViTModel(transformers.ViTConfig(**vision)).save_pretrained(tmp_path / "dino")
    assert_unit_rows(load_judge("dino", source=str(tmp_path / "dino"), offline=True).encode_images(PICTURES), 32)


def test_embedded_text_feature_is_the_projected_first_end_token(judges: Judges, embedded: Path) -> None:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(embedded / "sd" / "tokenizer")
    model = transformers.CLIPTextModel.from_pretrained(embedded / "sd" / "text_encoder", dtype=torch.float32)
    text = "a dog in space"
    tokens = tokenizer(text).input_ids
    with torch.inference_mode():
        # without padding the last token is the end of the text
        end = model(input_ids=torch.tensor([tokens])).last_hidden_state[0, -1]
    from safetensors.torch import load_file

    weight = load_file(embedded / "judges" / "tiny-clip" / "text_projection.safetensors")["weight"]
    expected = torch.nn.functional.normalize(weight @ end, dim=0)
    torch.testing.assert_close(judges.clip.encode_texts([text])[0], expected, atol=1e-5, rtol=0)


def test_extremes_are_deviations_weighed_by_how_near_they_are_to_the_middle() -> None:
    # One channel around 1: places at -1, 0 and 1 of each axis. A corner counts exp(-2 / 1.28), a side exp(-1 / 1.28).
    maps = torch.tensor([[[[9.0, 1.0, 1.0], [1.0, 2.0, -2.0], [1.0, 1.0, 1.0]]]])
    corner, side = math.exp(-2 / 1.28), math.exp(-1 / 1.28)
    expected = torch.tensor([[max(8 * corner, 1.0), -3 * side]])
    torch.testing.assert_close(middle_extremes(maps, torch.tensor([1.0])), expected)
    assert 8 * corner > 1


def test_the_second_edition_of_the_image_judge_is_still_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    save_file({"mean": torch.full((1024,), 0.5), "spread": torch.full((1024,), 2.0)}, tmp_path / "features.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "mobilenetv3_small_050", "edition": 2, "model": "small"})
    )
    fed = {"size_px": 64, "read_px": 96, "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "preprocess.json").write_text(json.dumps(fed))
    judge = load_judge("tiny-dino", source=str(tmp_path))
    with torch.inference_mode():
        expected = (network(judge.encoder.preprocessing(PICTURES)) - 0.5) / 2
    torch.testing.assert_close(
        judge.encode_images(PICTURES), torch.nn.functional.normalize(expected, dim=1), atol=1e-5, rtol=0
    )
    assert judge.describe()["edition"] == 2


def test_features_do_not_depend_on_the_batch(judges: Judges) -> None:
    images = PICTURES * 3
    torch.testing.assert_close(
        judges.dino.encode_images(images, batch_size=4), judges.dino.encode_images(images, batch_size=1)
    )
    assert judges.dino.encode_images([]).shape == (0, 0)


def test_other_weights_have_another_key(embedded: Path, judges: Judges, tmp_path: Path) -> None:
    shutil.copytree(embedded / "judges" / "tiny-dino", tmp_path / "tiny-dino")
    weights = tmp_path / "tiny-dino" / "model.safetensors"
    assert load_judge("tiny-dino", source=str(tmp_path / "tiny-dino")).key == judges.dino.key
    model = transformers.ViTModel.from_pretrained(tmp_path / "tiny-dino", add_pooling_layer=False)
    weights.unlink()
    with torch.no_grad():
        model.layernorm.weight.mul_(2)
    model.save_pretrained(tmp_path / "tiny-dino")
    assert load_judge("tiny-dino", source=str(tmp_path / "tiny-dino")).key != judges.dino.key


def test_an_embedded_judge_that_is_not_whole_says_what_lacks(tmp_path: Path) -> None:
    with pytest.raises(JudgeMissing, match="lacks config.json, model.safetensors"):
        load_judge("tiny-clip", source=str(tmp_path))


def test_weights_that_lack_a_part_are_refused(embedded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-dino"
    shutil.copytree(embedded / "judges" / "tiny-dino", folder)
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    state.pop(next(name for name in state if "layernorm_before" in name))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JudgeMissing, match="1 weights are missing"):
        load_judge("tiny-dino", source=str(folder))


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weights": Trap()}, tmp_path / "dino.pth")
    with pytest.raises(JudgeMissing, match="could not be read"):
        load_judge("dino", source=str(tmp_path / "dino.pth"))
    assert not (tmp_path / "sprung").exists()


def test_names_that_do_not_exist_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="'sharp'") as caught:
        load_judges("sharp")
    assert "paper" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="'dinosaur'"):
        load_judge("dinosaur")
