"""The hybrid of the user models' candidates."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "hybrid",
    Lists.USERS,
    f"{__name__}.program:PROGRAM",
    on_ranks=True,
    blends=True,
    suits="nights of two user models or more",
    cost="each of them is trained once more, as of a time before the hold-out; then a classifier, or a network",
    matter=("models", "candidates", "blender"),
)
