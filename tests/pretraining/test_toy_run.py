"""The whole of pretraining at toy size, without a network: every stage, the packed folder, and going on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from transformers import CLIPTextModel

from dbcli.metrics.judges.loading import load_judge
from pretraining import autoencoder
from pretraining.all import make_all
from pretraining.base import Base, Plan, Trainer, make_base, new_unet
from pretraining.clip import load_text_tower, to_pixels
from pretraining.corpus import compose_pictures
from pretraining.corpus_latents import CorpusLatents
from pretraining.measure import crispness
from pretraining.measure_autoencoder import measure
from pretraining.progress import save_checkpoint
from pretraining.settings import TOY, Run
from pretraining.warm import adopt


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("pretraining")
    finished = Run(folder, TOY, 0, torch.device("cpu"), bfloat16=False)
    make_all(finished, folder / "embedded")
    return finished


@pytest.fixture(scope="module")
def embedded(run: Run) -> Path:
    return run.folder / "embedded"


def test_the_packed_base_loads_with_plain_diffusers_and_draws(embedded: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(embedded / "sd", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a can on grass", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (128, 128, 3)
    assert np.isfinite(image).all()
    assert image.std() > 0


def test_the_packed_tokenizer_keeps_clips_ids(embedded: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(embedded / "sd", local_files_only=True)
    ids = pipeline.tokenizer("a sks dog", padding="max_length").input_ids
    assert ids[:5] == [49406, 320, 48136, 1929, 49407]
    assert len(ids) == 16


def test_text_keys_carry_the_prefix_and_load_whole(embedded: Path) -> None:
    path = embedded / "sd" / "text_encoder"
    with safe_open(path / "model.safetensors", framework="pt") as weights:
        assert all(key.startswith("text_model.") for key in weights.keys())  # noqa: SIM118 - not a dict
    _, info = CLIPTextModel.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize(("judge", "width"), [("tiny-clip", 128), ("tiny-dino", 96)])
def test_judges_load_and_give_one_feature_a_photo(embedded: Path, judge: str, width: int) -> None:
    images = [Image.open(path) for path in sorted((embedded / "photos").glob("*/*.png"))]
    features = load_judge(judge, source=str(embedded / "judges" / judge)).encode_images(images)
    assert features.shape == (10, width)
    assert float(features.std(0).max()) > 0


def test_photos_show_two_subjects_five_times(embedded: Path) -> None:
    subjects = json.loads((embedded / "photos" / "subjects.json").read_text())
    assert [subject["class"] for subject in subjects] == ["dog", "teapot"]
    assert all((embedded / "photos" / name).exists() for subject in subjects for name in subject["files"])
    photos = [np.asarray(Image.open(path)) for path in (embedded / "photos").glob("*/*.png")]
    assert len(photos) == 10
    assert all(photo.std() > 0 for photo in photos)


def test_held_out_sets_are_never_composed(run: Run) -> None:
    records = json.loads((run.folder / "sprites.json").read_text())
    held_out = {record["row"] for record in records if record["set_name"] == "twemoji"}
    named = json.loads((run.folder / "identities.json").read_text())
    assert held_out
    assert not held_out & {identity["row"] for identity in named}


def test_without_bound_words_the_pictures_are_the_same_and_only_the_words_are_gone(run: Run) -> None:
    words = {identity["token"] for identity in json.loads((run.folder / "identities.json").read_text())}
    bound, plain = (list(compose_pictures(run, 96, held_out=False, bind=bind)) for bind in (True, False))
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(bound, plain, strict=True))
    captions = [(one.caption, other.caption) for one, other in zip(bound, plain, strict=True)]
    named = [(one.split(), other.split()) for one, other in captions if one != other]
    assert named
    for one, other in named:
        assert words & set(one) and not words & set(other)
        articles = {"a", "an"}
        left = [[word for word in caption if word not in words | articles] for caption in (one, other)]
        assert left[0] == left[1]


def test_training_goes_on_from_its_checkpoint(run: Run) -> None:
    trainer = Trainer(run, Base(new_unet(run), load_text_tower(run)), Plan(TOY.base_seconds, 0))
    saved = torch.load(run.folder / "base.pt", weights_only=True)
    assert trainer.step == saved["step"] > 0
    assert trainer.used_seconds >= TOY.base_seconds
    state = trainer.base.state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved["base"].items())


def test_a_number_of_steps_ends_a_training_whatever_the_clock_says(run: Run) -> None:
    before = torch.load(run.folder / "base.pt", weights_only=True)["step"]
    make_base(run, Plan(0, 0, steps=before + 2))
    assert torch.load(run.folder / "base.pt", weights_only=True)["step"] == before + 2


def test_finishing_leaves_the_steady_training_as_it_was(run: Run) -> None:
    before = torch.load(run.folder / "base.pt", weights_only=True)
    make_base(run, Plan(1e6, 0, finish_in=1.0))
    finished = torch.load(run.folder / "base-finished.pt", weights_only=True)
    assert finished["step"] > before["step"]
    assert finished["used_seconds"] >= finished["ends_at"] == before["used_seconds"] + 1
    assert torch.load(run.folder / "base.pt", weights_only=True)["step"] == before["step"]


def test_a_training_that_is_asked_to_end_saves_and_goes_on_from_there(run: Run) -> None:
    before = torch.load(run.folder / "autoencoder.pt", weights_only=True)["step"]
    command = [sys.executable, "-m", "pretraining.autoencoder", "--toy", "--work", str(run.folder), "--seconds", "1e6"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--threads", "1", "--device", "cpu"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if line.startswith("autoencoder"))
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 0
    step = int(said.split()[1])
    assert step > before
    assert torch.load(run.folder / "autoencoder.pt", weights_only=True)["step"] >= step


def test_a_compact_checkpoint_goes_on_elsewhere(run: Run, tmp_path: Path) -> None:
    here = autoencoder.Trainer(run, autoencoder.new_autoencoder(run))
    save_checkpoint(tmp_path / "autoencoder.pt", here.compact())
    assert (tmp_path / "autoencoder.pt").stat().st_size < (run.folder / "autoencoder.pt").stat().st_size / 4
    again = Run(tmp_path, TOY, 0, torch.device("cpu"), bfloat16=False)
    there = autoencoder.Trainer(again, autoencoder.new_autoencoder(again))
    assert (there.step, there.used_seconds, there.encoder_rests) == (here.step, here.used_seconds, here.encoder_rests)
    for name, weight in there.vae.state_dict().items():
        torch.testing.assert_close(weight, here.average.weights[name], atol=1e-3, rtol=1e-3)
    pixels = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(there.targets(pixels), here.targets(pixels), atol=1e-2, rtol=1e-2)
    there.advance(pixels, 0.0, torch.Generator().manual_seed(0))
    assert there.step == here.step + 1


def test_a_finished_autoencoder_is_gone_on_with_by_its_decoder_alone(run: Run, tmp_path: Path) -> None:
    shutil.copytree(autoencoder.autoencoder_folder(run), tmp_path / "vae")
    again = Run(tmp_path, TOY, 0, torch.device("cpu"), bfloat16=False)
    trainer = autoencoder.Trainer(again, autoencoder.new_autoencoder(again))
    finished = autoencoder.load_autoencoder(run).state_dict()
    assert trainer.encoder_rests
    assert all(torch.equal(trainer.average.weights[name], value) for name, value in finished.items())
    trainer.advance(torch.rand(4, 3, 64, 64), 0.0, torch.Generator().manual_seed(0))
    changed = {name for name, value in trainer.vae.state_dict().items() if not torch.equal(value, finished[name])}
    assert changed and all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def test_the_earlier_base_gives_its_text_encoder_and_what_its_latents_say(run: Run, tmp_path: Path) -> None:
    again = Run(tmp_path, TOY, 0, torch.device("cpu"), bfloat16=False)
    first = Path(__file__).parents[2] / "dbcli" / "embedded" / "sd"
    adopt(again, first, {})
    assert load_text_tower(again).config.hidden_size == 128
    channels = json.loads((first / "vae" / "config.json").read_text())["latent_channels"]
    folder = tmp_path / ("first_edition/vae" if channels == 8 else "vae")
    assert (folder / "diffusion_pytorch_model.safetensors").exists()


def test_latents_are_encoded_when_first_asked_for_and_kept(run: Run) -> None:
    rows = torch.tensor([5, 190, 5, 17])
    images = np.load(run.folder / "pictures.npy", mmap_mode="r")
    with torch.no_grad():
        expected = autoencoder.load_autoencoder(run).encode(to_pixels(images[rows.numpy()])).latent_dist.mode()
    torch.testing.assert_close(CorpusLatents(run)[rows].float(), expected, atol=2e-2, rtol=1e-2)
    (kept,) = run.folder.glob("latents-*-known.npy")
    assert np.load(kept)[rows.numpy()].all()
    torch.testing.assert_close(CorpusLatents(run)[rows], CorpusLatents(run)[rows])


def test_an_encoder_that_rests_stays_at_rest_when_more_time_is_given(run: Run) -> None:
    trainer = autoencoder.Trainer(run, autoencoder.new_autoencoder(run))
    assert trainer.encoder_rests
    assert trainer.adversarial == 1
    before = [weight.detach().clone() for weight in autoencoder.encoder_weights(trainer.vae)]
    trainer.advance(torch.rand(4, 3, 64, 64), 0.0, torch.Generator().manual_seed(0))
    assert all(map(torch.equal, autoencoder.encoder_weights(trainer.vae), before))
    assert trainer.adversarial == 1


def test_pictures_of_the_corpus_are_as_crisp_as_the_corpus(run: Run) -> None:
    images = to_pixels(np.load(run.folder / "pictures.npy", mmap_mode="r")[:20])
    assert crispness(run, images)["crispness"] == pytest.approx(1.0)
    blurred = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    assert crispness(run, blurred)["crispness"] < 0.8


def test_an_autoencoder_is_measured_on_what_it_never_saw(run: Run, tmp_path: Path) -> None:
    measure(run, [autoencoder.autoencoder_folder(run)], run.folder / "embedded" / "photos", tmp_path)
    (figures,) = json.loads((tmp_path / "figures.json").read_text()).values()
    assert {f"{name}_psnr" for name in ("photographs", "corpus", "photos")} <= set(figures)
    worth = json.loads((tmp_path / "channels.json").read_text())["photographs"]
    assert worth["8"] < worth["12"] < worth["16"] < worth["24"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"photographs.png", "corpus.png", "photos.png"}
