"""Association rules, and the frequent itemsets that they are made from."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "rules",
    Lists.BASKETS,
    f"{__name__}.program:PROGRAM",
    first_night=True,
    suits="baskets of two products and more, a shop that wants to see why",
    cost="a pass over the baskets for each length of the itemsets",
    matter=("min_support", "min_confidence", "max_itemset"),
)
