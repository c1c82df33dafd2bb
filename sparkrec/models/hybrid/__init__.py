"""The hybrid of the user models' candidates."""

from sparkrec.models.model import Lists, Model

MODEL = Model("hybrid", Lists.USERS, f"{__name__}.program:PROGRAM", blends=True)
