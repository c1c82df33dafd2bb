"""ALS with weighted-λ regularisation, by Spark MLlib."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "als",
    Lists.USERS,
    f"{__name__}.program:PROGRAM",
    beside=("items", "users"),
    first_night=True,
    suits="users who took several items: purchases, plays, clicks, or ratings (als.feedback=explicit)",
    cost="on the cluster itself: passes over the user-item matrix, each by the square of the rank",
    matter=("rank", "alpha", "reg"),
)
