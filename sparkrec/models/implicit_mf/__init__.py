"""Matrix factorisation over what users took, learnt by ranking it above what they did not."""

from sparkrec.models.model import Lists, Model

MODEL = Model(
    "implicit_mf",
    Lists.USERS,
    f"{__name__}.program:PROGRAM",
    beside=("items", "users"),
    on_ranks=True,
    suits="as als, where the order of a list matters more than the weight of each event; dense logs",
    cost="each epoch draws some items against every pair of user and item",
    matter=("loss", "dim", "epochs"),
)
