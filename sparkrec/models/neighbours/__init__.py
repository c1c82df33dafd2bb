"""Item-based and user-based nearest neighbours."""

from sparkrec.models.model import Lists, Model

MODELS = (
    Model(
        "item_neighbours",
        Lists.USERS,
        f"{__name__}.program:ITEM_PROGRAM",
        beside=("items",),
        measure="takers",
        first_night=True,
        suits="as als; the first to try, as little is to be tuned",
        cost="one product of the user-item matrix with itself, by blocks; nothing is learnt",
        matter=("similarity", "neighbours", "half_life_days"),
    ),
    Model(
        "user_neighbours",
        Lists.USERS,
        f"{__name__}.program:USER_PROGRAM",
        beside=("users",),
        measure="takers",
        suits="as als, where users are fewer than items or tastes are of groups",
        cost="as item_neighbours, of users",
        matter=("neighbours", "half_life_days", "similarity"),
    ),
)
