"""prod2vec and Meta-prod2vec: items' vectors from what is taken together."""

from sparkrec.models.model import Lists, Model

MODELS = (
    Model(
        "prod2vec",
        Lists.ITEMS,
        f"{__name__}.program:PROGRAM",
        on_ranks=True,
        measure="partners",
        first_night=True,
        suits="baskets of several products (or sessions)",
        cost="each epoch goes over the pairs within the window",
        matter=("lists", "ns_exponent", "window"),
    ),
    Model(
        "meta_prod2vec",
        Lists.ITEMS,
        f"{__name__}.program:META_PROGRAM",
        on_ranks=True,
        suits="baskets of products that are seldom bought, but have features",
        cost="as prod2vec, and the pairs with features besides",
        matter=("side", "side_weight", "window"),
    ),
)
