"""CLIPSeg, and models that describe images, with hardly any weights, random ones, as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.metrics.judge_makers import EMBEDDED_SD, SHAPE

BLIP_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "on", "sofa", "red")


def write_clipseg(folder: Path) -> Path:
    import transformers

    config = transformers.CLIPSegConfig(
        text_config={**SHAPE, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config={**SHAPE, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.CLIPSegForImageSegmentation(config).save_pretrained(folder)
    transformers.CLIPTokenizer.from_pretrained(EMBEDDED_SD / "tokenizer").save_pretrained(folder)
    return folder


def write_blip(folder: Path) -> Path:
    import transformers

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(BLIP_WORDS), "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = transformers.BlipConfig(
        text_config={**shape, **text, "max_position_embeddings": 40, "encoder_hidden_size": 16, "projection_dim": 16},
        vision_config={**shape, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(BLIP_WORDS) + "\n", encoding="utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def write_florence(folder: Path) -> Path:
    """Florence-2 as transformers saves it, which writes letters."""
    import transformers
    from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

    letters = sorted(set("WhatdoeshimgcrbD?anlskwuI."))
    words = ["<s>", "<pad>", "</s>", "<unk>", "<image>", *letters, *(f"Ġ{letter}" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = transformers.BartTokenizer(vocab=vocabulary, merges=[], extra_special_tokens={"image_token": "<image>"})
    images = transformers.CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    images.image_seq_length = 2  # one for each of the two ways in which the last map is pooled
    four = {"depths": (1,) * 4, "embed_dim": (8,) * 4, "num_heads": (1,) * 4, "num_groups": (1,) * 4}
    text = {"model_type": "bart", "vocab_size": len(words), "d_model": 16, "max_position_embeddings": 64}
    for side in ("encoder", "decoder"):
        text |= {f"{side}_layers": 1, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 16}
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = transformers.Florence2Config(
        vision_config=Florence2VisionConfig(**four, window_size=2, projection_dim=16, drop_path_rate=0.0).to_dict(),
        text_config={**text, **special, "decoder_start_token_id": 2, "forced_eos_token_id": 2},
        image_token_id=vocabulary["<image>"],
        **special,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Florence2ForConditionalGeneration(config).save_pretrained(folder)
    transformers.Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_chat_model(folder: Path, *, shards: bool = False) -> Path:
    """Qwen3-VL as transformers saves it, which writes letters; with `shards` its weights are in several files."""
    import transformers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    special += ["<|image_pad|>", "<|video_pad|>"]
    words = [*special, *"abcdefghijklmnopqrstuvwxyzWBD',.", "Ġ", "Ċ"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=[], pad_token=special[0], eos_token=special[2])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    patches = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 256, "longest_edge": 1024}
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(**patches, size=size),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(**patches),
        chat_template=CHAT_TEMPLATE,
    )
    shape = {"hidden_size": 16, "intermediate_size": 16}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1e4}
    text = {**shape, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    text |= {"vocab_size": len(tokenizer), "rope_parameters": rope, "eos_token_id": 2, "pad_token_id": 0}
    vision = {**shape, "depth": 2, "num_heads": 2, "patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
    vision |= {"out_hidden_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    tokens = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    tokens |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    config = transformers.Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        **{f"{name}_token_id": vocabulary[word] for name, word in tokens.items()},
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.Qwen3VLForConditionalGeneration(config)
    model.save_pretrained(folder, **({"max_shard_size": "20KB"} if shards else {}))
    processor.save_pretrained(folder)
    return folder
