"""Names of made-up items, categories and brands."""

from __future__ import annotations

import numpy as np

from sparkrec.makelog.world import World

ADJECTIVES = (
    "Red", "Blue", "Green", "Ivory", "Black", "Golden", "Vintage", "Rustic", "Modern", "Striped", "Spotty", "Floral",
    "Classic", "Mini", "Large", "Folding", "Retro", "Silver", "Pink", "Painted",
)  # fmt: skip
MATERIALS = (
    "Ceramic", "Wooden", "Glass", "Cotton", "Steel", "Leather", "Paper", "Bamboo", "Enamel", "Linen", "Wicker", "Tin",
    "Marble", "Felt", "Wool", "Copper",
)  # fmt: skip
THINGS = (
    "Mug", "Lantern", "Cushion", "Clock", "Basket", "Frame", "Vase", "Bowl", "Candle", "Lunch Box", "Notebook", "Tray",
    "Teapot", "Apron", "Doorstop", "Puzzle", "Umbrella", "Blanket", "Mirror", "Planter", "Wallet", "Garland", "Jigsaw",
    "Cake Stand", "Hook", "Bottle", "Rug", "Stool", "Chalkboard", "Jewellery Box", "Kettle", "Lamp", "Hammock", "Scarf",
    "Tea Towel", "Money Box", "Wreath", "Cutlery Set", "Bird Feeder", "Drawer Knob",
)  # fmt: skip
PLACES = ("", "Kitchen", "Garden", "Travel", "Office")  # prefixes that make 200 categories of 40 things
GENRES = (
    "Drama", "Comedy", "Thriller", "Action", "Romance", "Crime", "Adventure", "Horror", "Mystery", "Sci-Fi", "Fantasy",
    "Animation", "Biography", "Family", "History", "War", "Music", "Western", "Sport", "Documentary",
)  # fmt: skip
FILM_WORDS = (
    "Night", "River", "House", "Road", "Garden", "Winter", "Stranger", "Promise", "Island", "Letter", "Shadow", "Train",
    "Summer", "Secret", "Kingdom", "Storm", "Mirror", "Harbour", "Orchard", "Signal",
)  # fmt: skip
BRANDS = tuple(
    f"{first}{last}"
    for first in ("Nor", "Bel", "Kas", "Ama", "Lum", "Ost", "Vir", "Tor", "Elm", "Hal")
    for last in ("dale", "wick", "ora", "mont", "field", "lin", "berg", "ette", "stone", "well")
)
FAMILY_NAMES = ("Smith", "Novak", "Garcia", "Kim", "Okafor", "Rossi", "Dubois", "Silva", "Khan", "Larsen", "O'Neill")
GIVEN_NAMES = ("Ann", "Ben", "Chloé", "David", "Eva", "Finn", "Grace", "Hugo", "Iris", "Jonas", "Kate", "Leo")


def category_names(world: World) -> list[str]:
    """The name of each category."""
    return [
        f"{PLACES[c // len(THINGS) % len(PLACES)]} {THINGS[c % len(THINGS)]}s".strip()
        for c in range(world.n_categories)
    ]


def product_titles(world: World) -> list[str]:
    """A title for each item, such as ``Red Ceramic Mug 17``; one in fifty has a comma."""
    rng = np.random.default_rng([len(ADJECTIVES), world.n_items])
    adjective, material, special = rng.integers(0, [[20], [16], [50]], (3, world.n_items)).tolist()
    nouns = [name[:-1] for name in category_names(world)]
    return [
        f"{'Set of 6, ' if s == 0 else ''}{ADJECTIVES[a]} {MATERIALS[m]} {nouns[c]} {i % 1000}"
        for i, (a, m, s, c) in enumerate(zip(adjective, material, special, world.category.tolist(), strict=True))
    ]


def film_titles(world: World) -> list[str]:
    """A title for each item, such as ``The Winter Harbour 17 (1994)``."""
    rng = np.random.default_rng([len(FILM_WORDS), world.n_items])
    first, second, year = rng.integers(0, [[20], [20], [94]], (3, world.n_items)).tolist()
    return [
        f"The {FILM_WORDS[a]} {FILM_WORDS[b]} {i % 1000} ({1930 + y})"
        for i, (a, b, y) in enumerate(zip(first, second, year, strict=True))
    ]


def film_genres(world: World) -> list[str]:
    """``Crime|Drama``: one or two genres for each item, the same for all of a category."""
    n = len(GENRES)
    of = [sorted({GENRES[c % n], GENRES[(c + c // n) % n]}) for c in range(world.n_categories)]
    return ["|".join(of[c]) for c in world.category.tolist()]


def brands(world: World) -> list[str]:
    """The brand of each item; a category has a few of them."""
    spread = np.arange(world.n_items) % 5
    return [BRANDS[k] for k in ((world.category * 7 + spread) % len(BRANDS)).tolist()]


def prices(world: World) -> list[str]:
    """The price of each item with two decimals, above 0; a category has its own level."""
    rng = np.random.default_rng([2, world.n_items])
    level = rng.lognormal(1.5, 0.7, world.n_categories)[world.category]
    return [f"{max(price, 0.1):.2f}" for price in (level * rng.lognormal(0.0, 0.4, world.n_items)).tolist()]
