"""The hub's README.md: what machines read, and words that stay words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from dbcli.reports.model_card import CardFacts, CardScore, Shown, model_card

FACTS = CardFacts(
    title="my-dog",
    method="lora",
    base_model="CompVis/stable-diffusion-v1-4",
    base_name="sd-v1-4",
    licence="creativeml-openrail-m",
    instance_prompt="a photo of a sks dog",
    words=[("sks", "dog")],
    images=[Shown("images/0.png", "a sks dog in space")],
    scores=[CardScore("quick", "DINO", "dino-vits16", 0.7, None, None, None, "higher")],
    training=[("steps", "800")],
    resolution_px=512,
    version="1.2.3",
    repository="ann/my-dog",
)


def test_the_front_matter_is_what_the_hub_reads() -> None:
    data = ModelCard(model_card(FACTS)).data
    assert data.base_model == "CompVis/stable-diffusion-v1-4"
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "creativeml-openrail-m",
        "diffusers",
        "text-to-image",
    )
    assert data.to_dict()["instance_prompt"] == "a photo of a sks dog"
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert data.widget[0]["output"]["url"] == "images/0.png"


def test_a_fine_tuned_model_says_so_and_loads_alone() -> None:
    text = model_card(replace(FACTS, method="full"))
    assert ModelCard(text).data.to_dict()["base_model_relation"] == "finetune"
    assert 'StableDiffusionPipeline.from_pretrained("ann/my-dog")' in text
    assert "load_lora_weights" not in text


def test_a_word_says_so_and_loads_into_its_base() -> None:
    text = model_card(replace(FACTS, method="textual-inversion", embeddings=["sks.safetensors"]))
    data = ModelCard(text).data.to_dict()
    assert data["base_model_relation"] == "adapter"
    assert "textual_inversion" in data["tags"]
    assert 'from_pretrained("CompVis/stable-diffusion-v1-4")' in text
    assert 'pipeline.load_textual_inversion("ann/my-dog", weight_name="sks.safetensors")' in text
    assert "with textual inversion (Gal et al., 2023)" in text


def test_a_model_made_elsewhere_is_not_said_to_be_taught_here() -> None:
    text = model_card(replace(FACTS, is_trained_here=False))
    assert "It answers to **sks dog** (a dog)." in text
    assert "was taught" not in text


def test_values_that_are_not_defined_are_left_empty() -> None:
    assert "| quick | DINO | dino-vits16 | 0.700 |  |  | higher |" in model_card(FACTS)


HOSTILE = 'x"\n---\nlicense: mit\n<script>alert(1)</script> | ![a](b) `c` {{ 7 * 7 }} 🐶'


@pytest.mark.parametrize("method", ["lora", "full"])
def test_words_of_a_person_stay_words(method: str) -> None:
    shown = [Shown("images/0.png", HOSTILE)]
    text = model_card(
        replace(FACTS, method=method, instance_prompt=HOSTILE, images=shown, words=[("a|b", "<b>")], title=HOSTILE)
    )
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["instance_prompt"]) == ("creativeml-openrail-m", HOSTILE)
    body = text.split("\n---\n", 1)[1] if text.count("\n---\n") == 1 else text.rpartition("\n---\n\n")[2]
    assert "\nlicense: mit" not in body
    code = body.index("```python")
    assert "<script>" not in body[:code].replace("`" + " ".join(HOSTILE.replace("`", "'").split()) + "`", "")
    # The code stays one statement a line: quotes and line ends of the prompt are escaped.
    block = body[code:].split("```")[1].removeprefix("python\n")
    compile(block, "card", "exec")


def test_nothing_is_said_of_what_is_not_there() -> None:
    text = model_card(replace(FACTS, base_model=None, images=[], scores=[], words=[]))
    front = yaml.safe_load(text.split("---\n")[1])
    assert "base_model" not in front and "widget" not in front
    assert "## Scores" not in text


def test_a_word_for_xl_is_loaded_into_both_text_encoders_by_its_own_pipeline() -> None:
    tables = [("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")]
    facts = replace(
        FACTS,
        method="textual-inversion",
        embeddings=["sks.safetensors"],
        tables=tables,
        pipeline="StableDiffusionXLPipeline",
        tag="stable-diffusion-xl",
    )
    card = model_card(facts)
    code = card.split("```python")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "from diffusers import StableDiffusionXLPipeline" in code
    word = facts.words[0][0]
    for encoder, table in tables:
        number = encoder.removeprefix("text_encoder")
        how = f'token="{word}", text_encoder=pipeline.{encoder}, tokenizer=pipeline.tokenizer{number})'
        assert f'pipeline.load_textual_inversion(word["{table}"], {how}' in code
    assert "- stable-diffusion-xl\n" in card
