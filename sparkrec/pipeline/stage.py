"""What a stage of a night is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sparkrec.models.night import Inputs, Night
from sparkrec.settings.config import Config
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import Table


def _no_models(_: Config) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Stage:
    """A step of the night.

    Attributes:
        name: Its name in ``runs``, in ``jobs/`` and on the command line.
        inputs: The tables that it reads.
        settings: The part of the configuration that its results depend on (JSON-able or dataclasses).
        run: The work.
        optional: The tables that it reads where they exist.
        models: The night's trained models that it reads, by the configuration.
        plan: Of a stage that decides by itself if there is anything to do, whatever the ledger says: whether it has,
            and what, or why not.
        aftercare: Whether the night is done without it: its failure is recorded, and the night ends as it would have.
    """

    name: str
    inputs: tuple[Table, ...]
    settings: Callable[[Night], tuple[Any, ...]]
    run: Callable[[Night, Inputs], StageResult]
    optional: tuple[Table, ...] = ()
    models: Callable[[Config], Sequence[str]] = _no_models
    plan: Callable[[Night], tuple[bool, str]] | None = None
    aftercare: bool = False
