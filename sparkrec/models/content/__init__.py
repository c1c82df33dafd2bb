"""Content-based lists."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "content",
    Lists.USERS,
    f"{__name__}.program:PROGRAM",
    beside=("items",),
    suits="items with texts or ready vectors; lists hold items that nobody has taken yet",
    cost="nothing is learnt: a mean of vectors for each user",
    matter=("vectors", "half_life_days"),
)
