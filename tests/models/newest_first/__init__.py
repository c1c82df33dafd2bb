"""A model of another package: the items that came last, for everybody."""

from sparkrec.models.model import Lists, Model

MODEL = Model("newest", Lists.USERS, f"{__name__}.program:PROGRAM", settings=f"{__name__}.settings:NewestConfig")
