"""The two towers: their network, its training and its serving."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "two_tower",
    Lists.USERS,
    f"{__name__}.program:PROGRAM",
    beside=("items", "users"),
    on_ranks=True,
    warm=True,
    first_night=True,
    suits="users and items with features, and logs in which what is hot changes by the day",
    cost="each epoch holds every event against all negatives of its step",
    matter=("dim", "temperature", "windows_days"),
)
