"""A small CLIP trained on the corpus: its text tower is the base's text encoder, both towers are a judge.

Radford et al., 2021 (symmetric contrastive loss). Captions repeat in a batch, so equal captions share the target.
"""

import json
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from pretraining.corpus import make_corpus
from pretraining.progress import Budget, Stop, falling_rate, load_checkpoint, own_time, save_checkpoint, set_rate
from pretraining.settings import (
    JUDGE_PX,
    PROMPT_TOKENS,
    TEXT_WIDTH,
    VOCABULARY_SIZE,
    Run,
    parser,
    run_from,
)
from pretraining.tokens import make_tokenizer

BATCH = 192
PEAK_RATE = 1e-3
EOS = 49_407
TOKEN_SPREAD = 0.1


def text_tower(vocabulary_size: int = VOCABULARY_SIZE, eos: int = EOS) -> CLIPTextModel:
    """Return an untrained text tower: two layers of width 128."""
    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=TEXT_WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=eos - 1,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    tower = CLIPTextModel(config)
    nn.init.normal_(tower.get_input_embeddings().weight, std=TOKEN_SPREAD)
    return tower


def image_tower(run: Run) -> CLIPVisionModelWithProjection:
    """Return an untrained image tower: a small ViT on patches of 8 px."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=run.size.image_width,
            intermediate_size=3 * run.size.image_width,
            num_hidden_layers=run.size.image_layers,
            num_attention_heads=run.size.image_width // 32,
            image_size=JUDGE_PX,
            patch_size=8,
            projection_dim=TEXT_WIDTH,
            hidden_act="quick_gelu",
        )
    )


class Clip(nn.Module):
    """Both towers, the text projection and the temperature; ids are those of the compact vocabulary."""

    def __init__(self, run: Run, used_ids: list[int]) -> None:
        super().__init__()
        # training 49,408 rows of which a few hundred occur would cost as much as the rest of the step
        self.text = text_tower(len(used_ids), eos=len(used_ids) - 1)
        self.image = image_tower(run)
        self.text_projection = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.6593))

    def forward(self, ids: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit text and image features [B, 128] of ids [B, 16] and pixels [B, 3, 64, 64] in [-1, 1]."""
        text = self.text_projection(self.text(input_ids=ids).pooler_output)
        image = self.image(pixel_values=pixels).image_embeds
        return F.normalize(text.float(), dim=-1), F.normalize(image.float(), dim=-1)


def contrastive_loss(text: Tensor, image: Tensor, scale: Tensor, groups: Tensor) -> Tensor:
    """Return the symmetric loss of unit features [B, D]; rows of the same group [B] share their target."""
    logits = scale * image @ text.T
    target = (groups[:, None] == groups[None, :]).float()
    target = target / target.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def to_pixels(images: np.ndarray) -> Tensor:
    """Turn uint8 pictures [B, H, W, 3] into float32 [B, 3, H, W] in [-1, 1]."""
    return (torch.from_numpy(images.astype(np.float32)) / 127.5 - 1).permute(0, 3, 1, 2)


def to_judge(images: np.ndarray) -> Tensor:
    """Turn uint8 pictures [B, H, W, 3] into what judges see: float32 [B, 3, 64, 64] in [-1, 1]."""
    return shrink(to_pixels(images))


def shrink(pixels: Tensor) -> Tensor:
    """Shrink pixels [B, 3, H, W] to what judges see, [B, 3, 64, 64]."""
    return F.interpolate(pixels, size=(JUDGE_PX, JUDGE_PX), mode="area")


def encode_captions(captions: list[str]) -> Tensor:
    """Return token ids [N, 16] of captions, padded."""
    encoded = make_tokenizer()(
        captions, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids


@dataclass(frozen=True)
class Captioned:
    """The corpus as CLIP sees it."""

    images: np.ndarray
    ids: Tensor
    groups: Tensor
    used_ids: list[int]


def load_captioned(run: Run) -> Captioned:
    """Load pictures and captions; ids are renumbered to the compact vocabulary, whose last id is EOS."""
    captions = [entry[0] for entry in json.loads(run.path("captions.json").read_text())]
    unique = sorted({"", *captions})
    table = encode_captions(unique)
    used, compact = torch.unique(table, return_inverse=True)
    group = {caption: index for index, caption in enumerate(unique)}
    groups = torch.tensor([group[caption] for caption in captions])
    images = np.load(run.path("pictures.npy"), mmap_mode="r")
    return Captioned(images, compact[groups], groups, used.tolist())


def shift(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move a batch by up to 4 px each way."""
    down, right = torch.randint(0, 9, (2,), generator=generator).tolist()
    padded = F.pad(pixels, (4, 4, 4, 4), mode="replicate")
    return padded[..., down : down + JUDGE_PX, right : right + JUDGE_PX]


def full_text_tower(clip: Clip, used_ids: list[int], seed: int) -> CLIPTextModel:
    """Put the trained rows into a table of CLIP's whole vocabulary; the other rows are random, of like length."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tower = text_tower()
    small = clip.text.state_dict()
    table_name = next(name for name in small if name.endswith("token_embedding.weight"))
    table = tower.get_input_embeddings().weight.detach().clone()
    trained = small[table_name].float().cpu()
    table *= trained.norm(dim=1).median() / table.norm(dim=1).median()
    table[torch.tensor(used_ids)] = trained
    tower.load_state_dict({**small, table_name: table})
    return tower.eval()


def train(run: Run, clip: Clip, data: Captioned) -> None:
    """Train until the budget is spent, with a checkpoint each minute."""
    optimizer = torch.optim.AdamW(clip.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    path, step, used = run.path("clip.pt"), 0, 0.0
    if (saved := load_checkpoint(path)) is not None:
        clip.load_state_dict(saved["clip"])
        optimizer.load_state_dict(saved["optimizer"])
        step, used = saved["step"], saved["used_seconds"]
    budget, batch = Budget(run.size.clip_seconds, used, own_time(run.device)), min(BATCH, run.size.images // 2)
    saved_at = used

    def save() -> None:
        state = {"clip": clip.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(path, {**state, "step": step, "used_seconds": budget.used_seconds})

    with Stop() as stop:
        while budget.fraction < 1 and not stop.wanted:
            set_rate(optimizer, falling_rate(PEAK_RATE, budget.fraction, step, hold=0.3, warmup_steps=50))
            generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
            rows = torch.randint(0, len(data.ids), (batch,), generator=generator).sort().values
            pixels = shift(to_judge(data.images[rows.numpy()]), generator).to(run.device)
            with run.autocast():
                text, image = clip(data.ids[rows].to(run.device), pixels)
            scale = clip.log_scale.clamp(max=4.6).exp()
            loss = contrastive_loss(text, image, scale, data.groups[rows].to(run.device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                right = (image @ text.T).argmax(1)
                hit = (data.groups[rows][right.cpu()] == data.groups[rows]).float().mean()
                print(
                    f"clip {step} {budget.used_seconds:.0f}s loss {loss.item():.3f} caption found {hit:.2f}",
                    flush=True,
                )
            if budget.used_seconds - saved_at > 60:
                saved_at = budget.used_seconds
                save()
    save()


def load_text_tower(run: Run) -> CLIPTextModel:
    """Return the finished text encoder of a run, in float32."""
    return CLIPTextModel.from_pretrained(run.folder / "text_encoder", dtype=torch.float32).eval()


def make_clip(run: Run) -> None:
    """Train the small CLIP of a run, or go on with it."""
    make_corpus(run)
    torch.manual_seed(run.seed)
    data = load_captioned(run)
    clip = Clip(run, data.used_ids).to(run.device)
    train(run, clip, data)
    full_text_tower(clip, data.used_ids, run.seed).save_pretrained(run.path("text_encoder"))


def main() -> None:
    """Train the small CLIP on the corpus."""
    make_clip(run_from(parser(main.__doc__ or "").parse_args()))


if __name__ == "__main__":
    main()
