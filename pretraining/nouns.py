"""Which pictures stand for which noun: names in the emoji sets, and openclipart files chosen by eye."""

from dataclasses import dataclass, field

# Never trained on: these sets judge the base. OpenMoji and Emojione v1 are CC BY-SA and so stay out of the weights
# in any case; Twemoji is held out by choice, so that the classifier sees a third hand.
HELD_OUT_SETS = frozenset({"twemoji", "openmoji", "emojione-v1"})

# (set, name): a smiling face that wears the thing it is named after
DROPPED = frozenset({("fxemoji", "sunglasses")})

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 215, 50),
    "green": (60, 165, 70),
    "blue": (50, 100, 220),
    "purple": (140, 70, 190),
    "pink": (245, 140, 185),
    "brown": (130, 85, 50),
    "black": (30, 30, 32),
    "white": (245, 245, 245),
    "gray": (140, 140, 142),
}


@dataclass(frozen=True)
class Noun:
    """A word of the base, the emoji that show it, other words for it, and the files of openclipart that fit."""

    icons: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    clipart: tuple[str, ...] = field(default=())


NOUNS: dict[str, Noun] = {
    "dog": Noun(
        ("dog", "dog-face", "guide-dog", "service-dog"),
        ("puppy",),
        (
            "animals/mammals/dog_01_drawn_with_strai_01",
            "animals/mammals/dog_03_drawn_with_strai_01",
            "animals/mammals/dog_05_drawn_with_strai_01",
            "animals/mammals/dog_06_drawn_with_strai_01",
            "animals/mammals/dogs/bored_dog_01",
        ),
    ),
    "cat": Noun(
        ("cat", "cat-face", "black-cat"),
        ("kitten",),
        (
            "animals/mammals/cartoon_cat_gerald_g._01",
            "animals/mammals/housecats/gatto_cat_architetto_fra_01",
            "animals/mammals/housecats/gatto_cat_architetto_fra_03",
            "animals/mammals/housecats/gatto_cat_architetto_fra_04",
            "animals/mammals/housecats/kitten_gerald_g._01",
        ),
    ),
    "backpack": Noun(("backpack",)),
    "teapot": Noun(("teapot",), (), ("food/beverages/teapot_ganson", "food/beverages/a_teapot_01")),
    "boot": Noun(("hiking-boot", "womans-boot"), (), ("people/clothing/hiking_boot_jarno_vasama_",)),
    "sneaker": Noun(("running-shoe",), ("shoe",), ("people/clothing/tennis_shoe_jarno_vasama_",)),
    "bowl": Noun(("bowl-with-spoon", "steaming-bowl"), (), ("food/bowl_chaspo_", "food/bowl_of_steaming_soup_01")),
    "can": Noun(("canned-food",), ("tin can",)),
    "candle": Noun(("candle",)),
    "clock": Noun(
        ("alarm-clock", "mantelpiece-clock", "three-oclock"),
        (),
        (
            "signs_and_symbols/clocks/alarm_clock_mike_powers_",
            "signs_and_symbols/clocks/analog_clock_jonathan_di_01",
            "signs_and_symbols/clocks/modern_clock_chris_kemps_01",
            "signs_and_symbols/clocks/clock01",
        ),
    ),
    "glasses": Noun(("glasses", "sunglasses"), ("sunglasses",)),
    "stuffed animal": Noun(
        ("teddy-bear",),
        ("teddy bear", "plush toy"),
        (
            "recreation/toys/simple_teddy_bear_gerald_01",
            "recreation/toys/simple_teddy_bear_with__01",
            "recreation/toys/stylized_teddy_bear_gera_01",
        ),
    ),
    "vase": Noun(("amphora",)),
    "car": Noun(
        ("automobile", "taxi", "sport-utility-vehicle"),
        ("toy car",),
        ("transportation/car_jamin_ellis_", "transportation/vehicles/car"),
    ),
    "robot": Noun(("robot", "robot-face"), ("toy robot",), ("recreation/toys/robot_ganson",)),
    "cup": Noun(
        ("hot-beverage", "teacup-without-handle"),
        ("mug",),
        ("food/beverages/coffee_ganson", "office/cup_rollandin_francesco_", "food/beverages/mug"),
    ),
    "fox": Noun(("fox",)),
    "duck": Noun(("duck",), ("toy duck",), ("recreation/toys/rubber_duck1_ganson",)),
    "house": Noun(
        ("house", "house-with-garden"),
        (),
        (
            "buildings/homes/house",
            "buildings/homes/house_christoph_brill_01",
            "buildings/homes/house_juliane_krug_01",
            "buildings/homes/my_house_01",
        ),
    ),
    "apple": Noun(
        ("red-apple", "green-apple"),
        (),
        ("food/fruit/an_apple_01", "food/fruit/another_apple_01", "food/fruit/apple"),
    ),
    "guitar": Noun(
        ("guitar",),
        (),
        (
            "recreation/music/guitar_ganson",
            "recreation/music/guitar_jarno_vasamaa1",
            "recreation/music/guitar_jarno_vasamaa2",
        ),
    ),
    "umbrella": Noun(
        ("umbrella", "umbrella-with-rain-drops"), (), ("geography/canada_umbrella_ganson", "tools/umbrella")
    ),
    "mushroom": Noun(("mushroom",), (), ("plants/mushroom", "plants/mushroom_benji_park_")),
    "balloon": Noun(
        ("balloon",),
        (),
        (
            "recreation/party/balloon-blue-aj",
            "recreation/party/balloon-green-aj",
            "recreation/party/balloon-red-aj",
        ),
    ),
}
