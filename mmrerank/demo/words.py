"""Nouns that the picture book does not have, for questions that nobody can answer from it.

The two lists share no word: the model practises "cannot tell" on one and is asked about the other.
"""

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
    "tunnel", "dam", "chimney", "statue", "volcano", "glacier", "waterfall",
)  # fmt: skip
