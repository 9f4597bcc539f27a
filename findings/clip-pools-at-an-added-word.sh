#!/usr/bin/env bash
# Guess: CLIP's pooled text embedding is taken at the end token, also for a prompt with a word that was added to the vocabulary.
# Seen: where the configuration says eos_token_id 2, as that of Stable Diffusion 1.5's text encoder does, it is taken at the
# highest token number of the prompt. The end token has the highest that CLIP knows, 49407, and an added word has 49408
# or more: the pooled embedding is the one at the word, which has seen nothing of what follows it. "a <new> on sand" and "a
# <new> in snow" are then pooled to the same numbers.
# Versions: transformers 5.24.0, torch 2.14.1.
# Output: eos_token_id 2: an old word's prompts differ by 1.933, a new word's by 0.000
# Output: eos_token_id 49407: an old word's prompts differ by 3.794, a new word's by 2.579
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 transformers==5.24.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

START, END, OLD, NEW = 49406, 49407, 1929, 49408
SAND, SNOW = (525, 4767), (530, 2583)

torch.manual_seed(0)
differences = {}
for eos in (2, END):
    config = CLIPTextConfig(
        vocab_size=NEW + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=START,
        eos_token_id=eos,
    )
    model = CLIPTextModelWithProjection(config).eval()
    for word in (OLD, NEW):
        prompts = torch.tensor([[START, 320, word, *place, END, END] for place in (SAND, SNOW)])
        with torch.no_grad():
            sand, snow = model(prompts).text_embeds
        differences[eos, word] = torch.dist(sand, snow).item()
    old, new = differences[eos, OLD], differences[eos, NEW]
    print(f"eos_token_id {eos}: an old word's prompts differ by {old:.3f}, a new word's by {new:.3f}")
assert differences[2, NEW] < 1e-5
assert min(differences[2, OLD], differences[END, OLD], differences[END, NEW]) > 0.5
PYTHON
