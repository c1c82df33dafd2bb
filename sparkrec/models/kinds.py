"""The models there are: whom their lists are for, what lies beside, and what each builds on. The one place that knows.

Nothing here needs Spark: the configuration, the tables and the readers without a JVM ask it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Lists(Enum):
    """Whom the lists of a model are for."""

    USERS = "users"  # each known user
    SESSIONS = "sessions"  # the last session of each known user, and the day's anonymous ones
    BASKETS = "baskets"  # the last basket of each known user, and the day's anonymous ones
    ITEMS = "items"  # each item: what goes with it


@dataclass(frozen=True)
class ModelKind:
    """A model.

    Attributes:
        name: In ``models=[…]``, ``topk_<name>`` and ``train_<name>``.
        lists: Whom its lists are for.
        beside: ``items`` and ``users`` that lie beside each other in it, into ``topk_<name>_items`` and ``_users``.
        on_ranks: Trained on Horovod workers.
        warm: It may begin with an earlier night's weights.
        needs: Models of the same night that it is trained from.
    """

    name: str
    lists: Lists
    beside: tuple[str, ...] = ()
    on_ranks: bool = False
    warm: bool = False
    needs: tuple[str, ...] = ()


KINDS: dict[str, ModelKind] = {
    kind.name: kind
    for kind in (
        ModelKind("als", Lists.USERS, beside=("items", "users")),
        ModelKind("gru", Lists.SESSIONS, on_ranks=True, warm=True),
        ModelKind("two_tower", Lists.USERS, beside=("items", "users"), on_ranks=True, warm=True),
        ModelKind("prod2vec", Lists.ITEMS, on_ranks=True),
        ModelKind("meta_prod2vec", Lists.ITEMS, on_ranks=True),
        ModelKind("content2vec", Lists.ITEMS, on_ranks=True, needs=("prod2vec",)),
        ModelKind("rules", Lists.BASKETS),
        ModelKind("item_neighbours", Lists.USERS, beside=("items",)),
        ModelKind("user_neighbours", Lists.USERS, beside=("users",)),
        ModelKind("session_neighbours", Lists.SESSIONS),
        ModelKind("content", Lists.USERS, beside=("items",)),
        ModelKind("session_hybrid", Lists.SESSIONS, needs=("gru", "session_neighbours")),
        ModelKind("hybrid", Lists.USERS),
    )
}
MODELS = list(KINDS)


def models_for(lists: Lists) -> list[str]:
    """The models whose lists are for these, in order."""
    return [name for name, kind in KINDS.items() if kind.lists is lists]


def beside(what: str) -> list[str]:
    """The models that have ``items`` or ``users`` beside each other as tables of their own, in order."""
    return [name for name, kind in KINDS.items() if what in kind.beside or (what, kind.lists) == ("items", Lists.ITEMS)]
