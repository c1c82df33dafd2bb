"""What is known of a model before a night: whom its lists are for, what lies beside, and what it builds on.

Each model's folder says it of its own (``MODEL``, or ``MODELS`` where it holds several), ``sparkrec.models`` gathers
them. Nothing here needs Spark: the configuration, the tables and the readers without a JVM ask it. What a night does
with a model is its ``sparkrec.models.program.Program``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Lists(Enum):
    """Whom the lists of a model are for."""

    USERS = "users"  # each known user
    SESSIONS = "sessions"  # the last session of each known user, and the day's anonymous ones
    BASKETS = "baskets"  # the last basket of each known user, and the day's anonymous ones
    ITEMS = "items"  # each item: what goes with it


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        name: In ``models=[…]``, ``topk_<name>`` and ``train_<name>``; its section in the configuration.
        lists: Whom its lists are for.
        program: What a night does with it, a ``program.Program``: ``module:NAME``, imported when it is needed.
        beside: ``items`` and ``users`` that lie beside each other in it, into ``topk_<name>_items`` and ``_users``.
        on_ranks: Trained on Horovod workers.
        warm: It may begin with an earlier night's weights.
        needs: Models of the same night that it is trained from.
        blends: It is trained from the other user models of the night.
        proposes: Of items: it can also rank items for users, and does so for models that blend.
        first_night: ``sparkrec look`` proposes it for logs that have what its lists are for.
        settings: Of a model from outside of this package: its section in the configuration, a frozen dataclass, each
            setting with a default (``settings.bounds.setting``); ``module:NAME``; empty: it has no settings.
        suits: Which logs it suits, for ``docs/models.md``.
        cost: What its training takes, likewise.
        matter: The settings that matter most, likewise.
        measure: Of what lies beside: ``cosine`` of vectors, ``partners`` (a cosine, or how probable it is that the two
            are bought together), ``takers`` (how alike those are who took them),
            ``together`` (how often the two stand together).
    """

    name: str
    lists: Lists
    program: str
    beside: tuple[str, ...] = ()
    on_ranks: bool = False
    warm: bool = False
    needs: tuple[str, ...] = ()
    blends: bool = False
    proposes: bool = False
    first_night: bool = False
    measure: str = "cosine"
    suits: str = ""
    cost: str = ""
    matter: tuple[str, ...] = ()
    settings: str = ""


def can_propose(model: Model) -> bool:
    """Whether a model that blends can ask it for candidates."""
    return (model.lists is Lists.USERS and not model.blends) or model.proposes


def named(reference: str) -> Any:
    """What ``module:NAME`` stands for; the module is imported."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
