"""CLIPSeg and BLIP with hardly any weights, random ones, as transformers saves them."""

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
