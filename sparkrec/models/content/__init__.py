"""Content-based lists."""

from sparkrec.models.model import Lists, Model

MODEL = Model("content", Lists.USERS, f"{__name__}.program:PROGRAM", beside=("items",))
