"""ALS with weighted-λ regularisation, by Spark MLlib."""

from sparkrec.models.model import Lists, Model

MODEL = Model("als", Lists.USERS, f"{__name__}.program:PROGRAM", beside=("items", "users"))
