"""prod2vec and Meta-prod2vec: items' vectors from what is taken together."""

from sparkrec.models.model import Lists, Model

MODELS = (
    Model("prod2vec", Lists.ITEMS, f"{__name__}.program:PROGRAM", on_ranks=True, measure="partners"),
    Model("meta_prod2vec", Lists.ITEMS, f"{__name__}.program:META_PROGRAM", on_ranks=True),
)
