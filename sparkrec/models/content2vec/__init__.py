"""content2vec: items' vectors from their contents and prod2vec's."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "content2vec",
    Lists.ITEMS,
    f"{__name__}.program:PROGRAM",
    on_ranks=True,
    needs=("prod2vec",),
    suits="baskets of products with texts or ready vectors, also new ones",
    cost="prod2vec first, then epochs over the pairs",
    matter=("vectors", "combine", "hidden"),
)
