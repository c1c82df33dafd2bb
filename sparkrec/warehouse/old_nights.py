"""Which nights' models, snapshots and lists are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date

from sparkrec.errors import UserError
from sparkrec.storage import files
from sparkrec.warehouse.cards import CARD, read_card
from sparkrec.warehouse.location import Warehouse


def retention_hours(configured: float, longest_night: float, margin: float) -> int:
    """Hours that superseded files stay: as configured, but never less than the longest night and the margin."""
    return math.ceil(max(configured, longest_night + margin))


def kept_nights(nights: Iterable[date], keep: int, also: Iterable[date]) -> set[date]:
    """The latest nights, and some that stay whatever their age. With ``keep`` 0 all stay."""
    found = sorted(nights, reverse=True)
    return set(found[:keep] if keep else found) | set(also)


def nights_in(folder: str, ending: str = "") -> list[date]:
    """The nights that a folder has something of, ``YYYY-MM-DD`` and an ending; other names are passed over."""
    found = []
    for name in files.list_names(folder):
        try:
            day = date.fromisoformat(name.removesuffix(ending))
            found += [day] if name == f"{day}{ending}" else []
        except ValueError:
            continue
    return sorted(found)


def begun_with(warehouse: Warehouse, model: str, nights: Iterable[date]) -> set[date]:
    """The nights whose models these nights' models began with, as their cards say."""
    found: set[date] = set()
    for night in nights:
        try:
            inputs = read_card(warehouse, model, night).inputs
        except UserError:  # no model, or one that is being trained
            continue
        versions = [version for name, version in inputs.items() if name.startswith(f"models/{model}/")]
        found |= {date.fromisoformat(str(version)[:10]) for version in versions}  # <run_date>.<hash>
    return found


def remove_model(warehouse: Warehouse, model: str, night: date) -> None:
    """Removes a night's model, the card first: what is left of a removal that breaks off is no model."""
    folder = warehouse.model_path(model, night)
    files.remove(files.join(folder, CARD))
    files.remove(folder)
