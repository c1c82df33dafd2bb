"""Association rules, and the frequent itemsets that they are made from."""

from sparkrec.models.model import Lists, Model

MODEL = Model("rules", Lists.BASKETS, f"{__name__}.program:PROGRAM")
