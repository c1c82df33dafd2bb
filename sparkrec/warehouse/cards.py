"""The models of a night: where they lie, and the card that says what was trained from what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sparkrec.errors import UserError
from sparkrec.settings.config import config_hash
from sparkrec.storage import files
from sparkrec.warehouse.location import Warehouse

HOLDOUT, FULL = "holdout", "full"  # trained before the cutoff and judged after it; trained on everything
RANDOM = "random"  # trained without a share of the ratings, drawn at random, and judged on these
BLEND = "blend"  # trained as long before the cutoff as the hold-out lasts: the hybrid learns from what came between
CARD = "card.json"


@dataclass(frozen=True)
class ModelCard:
    """What was trained: written last, so a folder without one is no model."""

    model: str
    model_version: str
    cutoff: datetime  # the hold-out model saw events before it, UTC
    parts: tuple[str, ...]
    n_users: int
    n_items: int
    inputs: dict[str, Any]
    warm_nights: int = 0  # nights in a row that began with the night before, up to this one; 0: from scratch
    index_id: str = ""  # of the index tables whose numbers are those of the weights' rows
    full_retrain: str = ""  # why it was trained from scratch although nights begin with the night before
    untrained: str = ""  # why parts are missing that there was nothing to train on

    @property
    def served_part(self) -> str:
        """The part whose lists are published."""
        return FULL if FULL in self.parts else HOLDOUT

    @property
    def can_list(self) -> bool:
        """Whether there is a part to publish from."""
        return self.served_part in self.parts


def part_path(warehouse: Warehouse, model: str, run_date: date, part: str) -> str:
    """Folder of one part: ``<warehouse>/models/<model>/<run_date>/<part>``."""
    return f"{warehouse.model_path(model, run_date)}/{part}"


def model_version(run_date: date, *identity: Any) -> str:
    """``<run_date>.<hash>``: equal for equal inputs, settings and code."""
    return f"{run_date.isoformat()}.{config_hash(*identity)[:8]}"


def write_card(warehouse: Warehouse, run_date: date, card: ModelCard) -> None:
    """Publishes the folder as a model."""
    warehouse.fence()
    values = {**card.__dict__, "cutoff": card.cutoff.isoformat(), "parts": list(card.parts)}
    files.write_json(f"{warehouse.model_path(card.model, run_date)}/{CARD}", values)


def read_card(warehouse: Warehouse, model: str, run_date: date) -> ModelCard:
    """Reads the card of a night's model.

    Raises:
        UserError: The model has not been trained, or its card is not of this version of the package.
    """
    path = f"{warehouse.model_path(model, run_date)}/{CARD}"
    if not files.exists(path):
        raise UserError(f"model {model} of {run_date} has not been trained", where=path, fix=f"run train_{model} first")
    values = files.read_json(path)
    try:
        cutoff, parts = datetime.fromisoformat(values["cutoff"]), tuple(values["parts"])
        return ModelCard(**{**values, "cutoff": cutoff, "parts": parts})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the card of model {model} of {run_date} is damaged, or of another version of sparkrec",
            where=path,
            fix=f"run the version that wrote it, or train again: --from train_{model} --force; {error}",
        ) from error


def published_version(warehouse: Warehouse, model: str, run_date: date) -> str:
    """The version of a night's model.

    Raises:
        UserError: The model has not been trained.
    """
    return read_card(warehouse, model, run_date).model_version
