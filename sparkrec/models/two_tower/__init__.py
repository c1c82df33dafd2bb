"""The two towers: their network, its training and its serving."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "two_tower", Lists.USERS, f"{__name__}.program:PROGRAM", beside=("items", "users"), on_ranks=True, warm=True
)
