"""Predicted ratings: what a user will say of an item."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "ratings",
    Lists.USERS,
    f"{__name__}.program:PROGRAM",
    on_ranks=True,
    suits="logs of ratings or reviews; its lists rank what is rated often enough by the rating that it foresees",
    cost="each epoch sees every rating once; lists score the candidates for every user",
    matter=("network", "dim", "min_support"),
)
