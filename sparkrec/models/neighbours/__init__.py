"""Item-based and user-based nearest neighbours."""

from sparkrec.models.model import Lists, Model

MODELS = (
    Model("item_neighbours", Lists.USERS, f"{__name__}.program:ITEM_PROGRAM", beside=("items",), measure="takers"),
    Model("user_neighbours", Lists.USERS, f"{__name__}.program:USER_PROGRAM", beside=("users",), measure="takers"),
)
