"""Nouns that the picture book does not have, for questions that nobody can answer from it.

The two lists share no word: the model practises "cannot tell" on one and is asked about the other. It also
practises on words made up of syllables, or it would learn a list by heart instead of what a strange word is.
"""

from __future__ import annotations

import numpy as np

from mmrerank.picturebook.world import KINDS, Split, pick

TRAINING = (
    "violin", "guitar", "piano", "drum", "trumpet", "apple", "banana", "cherry", "lemon", "carrot",
    "potato", "cheese", "bread", "cake", "pizza", "spoon", "fork", "knife", "plate", "cup",
    "bottle", "kettle", "lamp", "candle", "mirror", "clock", "sofa", "chair", "desk", "shelf",
    "carpet", "pillow", "blanket", "curtain", "hammer", "wrench", "ladder", "bucket", "broom",
    "shovel", "rope", "anchor", "compass", "telescope", "rocket", "satellite", "robot", "computer",
    "keyboard", "printer", "camera", "radio", "telephone", "newspaper", "book", "pencil", "eraser",
    "ruler", "scissors", "envelope", "stamp", "coin", "wallet", "ring", "necklace", "crown",
    "helmet", "boot", "glove", "scarf", "jacket", "shirt", "button", "zipper", "lion", "tiger",
    "elephant", "giraffe", "zebra", "monkey", "kangaroo", "penguin", "dolphin", "whale", "shark",
    "octopus", "crab", "lobster", "spider", "ant", "beetle", "butterfly", "castle", "bridge",
    "windmill", "lighthouse",
)  # fmt: skip
EVALUATION = (
    "cello", "flute", "harp", "banjo", "accordion", "pear", "mango", "grape", "melon", "onion",
    "tomato", "pumpkin", "sausage", "waffle", "pretzel", "teapot", "jug", "ladle", "tray", "vase",
    "lantern", "chandelier", "stool", "bench", "wardrobe", "hammock", "tablecloth", "towel", "saw",
    "drill", "pliers", "wheelbarrow", "rake", "crane", "parachute", "submarine", "glider",
    "tractor", "bulldozer", "laptop", "tablet", "speaker", "microphone", "typewriter", "magazine",
    "notebook", "crayon", "paintbrush", "easel", "sculpture", "trophy", "medal", "bracelet",
    "earring", "tiara", "sandal", "slipper", "mitten", "belt", "sweater", "apron", "pyjamas",
    "camel", "rhino", "hippo", "panda", "koala", "sloth", "otter", "walrus", "seal", "squid",
    "jellyfish", "oyster", "snail", "worm", "wasp", "ladybug", "moth", "pyramid", "fountain",
    "tunnel", "dam", "igloo", "statue", "volcano", "glacier", "waterfall",
)  # fmt: skip

_BEGIN = (
    "", "b", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "l", "m", "n",
    "p", "pl", "qu", "r", "s", "sc", "sh", "sl", "sp", "st", "t", "th", "tr", "v", "w", "y", "z",
)  # fmt: skip
_MIDDLE = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "oa", "oo", "ou")
_END = (
    "", "b", "ck", "d", "g", "l", "ll", "m", "n", "nd", "ng", "p", "r", "rt", "s", "sk", "st", "x",
)  # fmt: skip


def outside(rng: np.random.Generator, split: Split) -> str:
    """A noun from outside the world; in training half of them are `invented`."""
    if split == "evaluation":
        return pick(rng, EVALUATION)
    return pick(rng, TRAINING) if rng.random() < 0.5 else invented(rng)


def invented(rng: np.random.Generator) -> str:
    """Something like a word, of one to three syllables, neither in the world nor asked about later."""
    while True:
        count = int(rng.integers(1, 4))
        parts = (f"{pick(rng, _BEGIN)}{pick(rng, _MIDDLE)}{pick(rng, _END)}" for _ in range(count))
        word = "".join(parts)
        if len(word) > 2 and word not in KINDS and word not in EVALUATION:
            return word
