"""What is bought together, by count: the baseline that product embeddings are held against.

See ``counts`` for how pairs are counted and scored.
"""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "copurchase_counts",
    Lists.ITEMS,
    f"{__name__}.program:PROGRAM",
    proposes=True,
    first_night=True,
    measure="together",
    suits="baskets of several products (or sessions); the first to try beside prod2vec",
    cost="a count of the pairs that stand close to each other; nothing is learnt",
    matter=("within", "score", "sequences"),
)
