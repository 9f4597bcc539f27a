"""Which settings of a run may change while it is under way."""

from __future__ import annotations

from dbcli.project.runs.resumable import MAY_CHANGE, OF_PROBE_IMAGES, changed_settings, may_change
from dbcli.project.settings.profiles import known_keys, resolve

# What decides the images, words and weights that a run is about; a new setting has to be put on one side or the other.
FOR_GOOD = {
    "method",
    *("train.text_encoder", "train.ema", "train.min_snr_gamma", "train.offset_noise", "train.rehearsal_share"),
    *(f"train.{key}" for key in ("debiased_estimation", "loss", "huber_schedule", "huber_c", "multires_noise")),
    *("train.accumulation", "train.seed", "images.caption_shuffle", "images.empty_share", "images.held_out"),
    *(
        f"prior.{key}"
        for key in ("enabled", "source", "teacher_draws", "empty_share", "weight", "images", "template", "steps")
    ),
    *(f"prior.{key}" for key in ("guidance", "sampler", "timesteps", "seed", "precision", "folder")),
    *(
        f"lora.{key}"
        for key in (
            "rank",
            "alpha",
            "targets",
            "text_targets",
            "dropout",
            "dora",
            "rslora",
            "init",
            "least_rank",
            "b_rate_ratio",
            "kind",
            "factor",
            "decompose_both",
            "tucker",
        )
    ),
    *("inversion.vectors", "inversion.initializer"),
    *(f"images.{key}" for key in ("resolution", "buckets", "crop", "flip", "templates", "caption_share", "mask_loss")),
    *(f"images.{key}" for key in ("cutouts", "scene_cutouts", "scenes")),
}


def test_every_setting_either_may_change_or_holds_for_the_whole_run() -> None:
    assert {key for key in known_keys() if not may_change(key)} == FOR_GOOD
    assert known_keys().keys() >= MAY_CHANGE


def test_what_a_schedule_free_average_lies_by_may_change_with_the_optimiser_alone() -> None:
    assert not may_change("train.beta1", "schedulefree")
    assert may_change("train.beta1", "adamw") and may_change("train.beta1", None)
    assert may_change("train.beta2", "schedulefree")


def test_every_setting_of_images_that_probes_do_not_replace_decides_what_their_images_are() -> None:
    replaced = {f"draw.{key}" for key in ("sampler", "eta", "steps", "count", "compile")}
    drawn = {key for key in known_keys() if key.startswith("draw.")} - replaced - {"draw.batch_size"}
    assert drawn == {key for key in OF_PROBE_IMAGES if key.startswith("draw.")}


def test_what_changed_is_told_by_dotted_key_with_both_values() -> None:
    before = resolve([("a", {"train.steps": 5})])
    after = resolve([("b", {"train.steps": 7, "lora": {"rank": 8}})])
    assert changed_settings(before, after) == {"train.steps": (5, 7), "lora.rank": (4, 8)}
    assert changed_settings(before, before) == {}
