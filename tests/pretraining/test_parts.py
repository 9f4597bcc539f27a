"""The parts of pretraining whose results can be worked out by hand."""

import numpy as np
import pytest
import torch

from pretraining.base import Plan, labelled_grid, masked_error, snr_weights
from pretraining.clip import contrastive_loss
from pretraining.compose import recolour, rotate_hue, with_article
from pretraining.judges import pair_loss
from pretraining.naming import COLOUR_NAMES, NOUN_NAMES, SCENE_NAMES, STYLE_NAMES, UNKNOWN, naming_loss, read_labels
from pretraining.progress import Average, Budget, falling_rate, steady_rate
from pretraining.solids import capsule, ellipsoid, torus
from pretraining.styles import STYLES, in_a_style, inked, rounded
from pretraining.tokens import LEFT_FREE, rare_words, read_vocabulary


def test_the_budget_counts_earlier_sittings() -> None:
    clock = iter([100.0, 110.0, 400.0])
    budget = Budget(60, used_seconds=20, now=lambda: next(clock))
    assert budget.used_seconds == 30
    assert budget.fraction == 1.0


def test_the_rate_warms_up_holds_and_falls_to_zero() -> None:
    rates = [falling_rate(1.0, f, 1000, hold=0.5, warmup_steps=10) for f in (0.0, 0.4, 0.75, 1.0)]
    assert rates == [1.0, 1.0, 0.5, 0.0]
    assert falling_rate(1.0, 0.0, 4, hold=0.5, warmup_steps=10) == 0.5


def test_a_steady_rate_warms_up_and_stays_until_told_to_end() -> None:
    assert steady_rate(2.0, 1.0, 4, warmup_steps=10) == 1.0
    assert steady_rate(2.0, 1.0, 100_000, warmup_steps=10) == 2.0
    assert steady_rate(2.0, 0.25, 100_000, warmup_steps=10) == 0.5


def test_a_steady_plan_keeps_the_rate_and_stops_at_its_end() -> None:
    plan = Plan(seconds=1000, fall_seconds=0)
    assert [plan.left(used, step=0) for used in (0, 999, 1000, 1001)] == [1, 1, 0, 0]


def test_a_falling_plan_falls_over_its_last_part() -> None:
    plan = Plan(seconds=1000, fall_seconds=700)
    assert [plan.left(used, step=0) for used in (0, 300, 650, 1000)] == [1, 1, 0.5, 0]


def test_finishing_begins_where_the_training_stands() -> None:
    plan = Plan(seconds=1e6, fall_seconds=0, finish_in=200).from_here(5000)
    assert [plan.left(used, step=0) for used in (5000, 5100, 5200)] == [1, 0.5, 0]


def test_a_number_of_steps_sets_the_rate_whatever_the_clock_says() -> None:
    plan = Plan(seconds=1, fall_seconds=1, steps=100)
    assert [plan.left(1e9, step) for step in (0, 30, 65, 100)] == pytest.approx([1, 1, 0.5, 0])


def test_the_average_follows_slowly() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = Average(module)
    module.weight.data.fill_(11.0)
    average.update(module)
    # first update: decay 2/11, so 9/11 of the way
    assert average.weights["weight"].item() == pytest.approx(9.0)


def test_a_loaded_average_goes_on_where_its_weights_lie() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    first, second = Average(module), Average(module)
    module.weight.data.fill_(11.0)
    first.update(module)
    # On another device, which a checkpoint does not know, they must stay there.
    place = second.weights["weight"].data_ptr()
    second.load(first.state())
    assert second.weights["weight"].data_ptr() == place != first.weights["weight"].data_ptr()
    for one in (first, second):
        one.update(module)
    assert torch.equal(first.weights["weight"], second.weights["weight"])


def test_the_mask_makes_the_thing_count_four_times() -> None:
    prediction, target = torch.zeros(1, 1, 1, 2), torch.tensor([[[[2.0, 0.0]]]])
    alpha = torch.tensor([[[[1.0, 0.0]]]])
    # weights 4 and 1: (4 * 2^2 + 0) / 2 over their mean 2.5
    assert masked_error(prediction, target, alpha).item() == pytest.approx(8 / 2.5)


def test_min_snr_weights_have_mean_one_and_fall_with_noise() -> None:
    weights = snr_weights()
    assert weights.mean().item() == pytest.approx(1.0, rel=1e-5)
    assert weights[999] < weights[500]


def test_equal_captions_share_the_target() -> None:
    features = torch.nn.functional.normalize(torch.ones(2, 3), dim=-1)
    same = contrastive_loss(features, features, torch.tensor(10.0), torch.tensor([5, 5]))
    assert same.item() == pytest.approx(np.log(2))


def test_matching_pairs_have_almost_no_loss() -> None:
    features = torch.eye(4)
    # partner at similarity 1, six others at 0: -log(e^10 / (e^10 + 6))
    assert pair_loss(features, features).item() == pytest.approx(np.log1p(6 * np.exp(-10)), rel=1e-3)


def test_recolouring_keeps_alpha_and_gives_the_colour() -> None:
    sprite = np.zeros((8, 8, 4), np.float32)
    sprite[2:6, 2:6] = 1.0
    red = recolour(sprite, "red")
    assert np.array_equal(red[..., 3], sprite[..., 3])
    assert red[3, 3, 0] > 2 * red[3, 3, 2]


def test_turning_the_hue_by_120_degrees_swaps_channels() -> None:
    sprite = np.zeros((1, 1, 4), np.float32)
    sprite[0, 0] = (0.5, 0.4, 0.3, 1.0)
    gray = 0.3 * 0.5 + 0.59 * 0.4 + 0.11 * 0.3
    turned = rotate_hue(sprite, 120, 1.0)[0, 0]
    assert turned[:3] - gray == pytest.approx(np.array([0.3, 0.5, 0.4]) - gray, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "expected"), [("apple", "an apple"), ("red dog", "a red dog"), ("glasses", "glasses")]
)
def test_articles(words: str, expected: str) -> None:
    assert with_article(words) == expected


def test_rare_words_are_single_tokens_and_leave_identifiers_free() -> None:
    words = rare_words(0, 400)
    vocabulary, _ = read_vocabulary()
    assert len(set(words)) == 400
    assert all(vocabulary[word + "</w>"] >= 40_000 for word in words)
    assert not LEFT_FREE & set(words)
    assert rare_words(0, 10) == words[:10]


def test_distances_of_solids() -> None:
    point = np.array([[2.0, 0.0, 0.0]], np.float32)
    assert ellipsoid((0, 0, 0), (1, 1, 1))(point)[0] == pytest.approx(1.0)
    assert capsule((0, 0, 0), (1, 0, 0), 0.25)(point)[0] == pytest.approx(0.75)
    assert torus((0, 0, 0), (0, 1, 0), 1.0, 0.25)(point)[0] == pytest.approx(0.75)


def test_silence_is_something_to_name() -> None:
    entries = [
        ["a red dog", "dog", "beach", "red", "flat"],
        ["a photo of a cat on the beach", "cat", "beach", "", "photo"],
    ]
    labels = read_labels(["", "a photo of a cat on the beach", "a red dog"], entries)
    cat = [NOUN_NAMES.index("cat"), SCENE_NAMES.index("beach"), len(COLOUR_NAMES), STYLE_NAMES.index("photo")]
    dog = [NOUN_NAMES.index("dog"), len(SCENE_NAMES), COLOUR_NAMES.index("red"), len(STYLE_NAMES)]
    assert labels.tolist() == [[UNKNOWN] * 4, cat, dog]


def test_the_naming_loss_is_the_mean_over_what_is_known() -> None:
    even = [torch.zeros(2, 4), torch.zeros(2, 2), torch.zeros(2, 8)]
    labels = torch.tensor([[1, UNKNOWN, UNKNOWN], [0, 1, UNKNOWN]])
    # two choices among four and one among two: (2 ln 4 + ln 2) / 3
    assert naming_loss(even, labels).item() == pytest.approx(5 * np.log(2) / 3)
    assert naming_loss(even, torch.full((2, 3), UNKNOWN)).item() == 0


def white_square() -> np.ndarray:
    sprite = np.zeros((128, 128, 4), np.float32)
    sprite[32:96, 32:96] = 0.8, 0.8, 0.8, 1.0
    return sprite


def test_ink_follows_the_outline_and_leaves_the_rest() -> None:
    drawn = inked(white_square())
    assert drawn[32:36, 32:96, :3].max() < 0.1
    np.testing.assert_array_equal(drawn[40:88, 40:88], white_square()[40:88, 40:88])
    np.testing.assert_array_equal(drawn[..., 3], white_square()[..., 3])


def test_a_photographed_thing_is_lit_from_above_and_stays_premultiplied() -> None:
    lit = rounded(np.random.default_rng(0), white_square())
    assert lit[36, 64, 0] > lit[92, 64, 0]
    assert (lit[..., :3] <= lit[..., 3:]).all()


def test_a_set_is_called_what_it_is_drawn_like_unless_photographed_or_inked() -> None:
    draw = np.random.default_rng(0)
    seen = [in_a_style(draw, white_square(), "fluent-3d")[1] for _ in range(300)]
    assert {style: seen.count(style) / 300 for style in STYLES} == pytest.approx(
        {"photo": 0.5, "3d": 0.35, "flat": 0.0, "drawing": 0.15}, abs=0.08
    )
    assert {in_a_style(draw, white_square(), "twemoji")[1] for _ in range(100)} == {"photo", "flat", "drawing"}


def test_a_label_never_reaches_under_the_next_picture() -> None:
    images = torch.zeros(2, 3, 8, 8)
    long, short = (labelled_grid(images, [label, ""], 2, 64) for label in ("a robot in front of a brick wall", "a fox"))
    assert long.height > short.height
    assert long.crop((64, 64, 128, long.height)).getcolors() == [((long.height - 64) * 64, (255, 255, 255))]
