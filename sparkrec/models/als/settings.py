"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from sparkrec.errors import UserError
from sparkrec.settings.setting import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, SEED, SHARE, setting


@dataclass(frozen=True)
class AlsConfig:
    """MLlib ALS-WR."""

    feedback: str = setting(
        "implicit", "implicit: confidence from event weights | explicit: ratings", choices=["explicit", "implicit"]
    )
    rank: int = setting(64, "dimensions of the factors", COUNT, tried=(32, 64, 128))
    iterations: int = setting(10, "alternations", COUNT, effort=True)
    reg: float = setting(
        0.1,
        "lambda, multiplied by each user's and item's number of events (ALS-WR); see residual_reg",
        NOT_NEGATIVE,
        tried=(0.003, 0.01, 0.03, 0.1, 0.3),
    )
    residual_reg: Optional[float] = setting(
        None,
        "explicit with biases: lambda in place of reg, of what the biases leave in its deviations; null: sqrt(users / "
        "ratings) + sqrt(items / ratings), below which factors learn noise",
        NOT_NEGATIVE,
    )
    alpha: float = setting(1.0, "implicit: confidence = 1 + alpha * weight", NOT_NEGATIVE, tried=(1.0, 5.0, 20.0))
    nonnegative: bool = setting(False, "factors of at least 0 only")
    biases: bool = setting(
        True,
        "explicit: factors of what the mean and the biases of user and item leave of a rating; not with nonnegative",
    )
    debias: float = setting(
        0.0, "implicit: the confidence is multiplied by the item's popularity ** -debias; 0 to 1", SHARE
    )
    user_blocks: int = setting(
        10,
        "parts that the users are dealt out to; 0: two for each task slot (factors begin otherwise then)",
        COUNT_OR_NONE,
    )
    item_blocks: int = setting(10, "parts that the items are dealt out to; 0: two for each task slot", COUNT_OR_NONE)
    checkpoint_interval: int = setting(5, "iterations between checkpoints", COUNT)
    seed: int = setting(1, bounds=SEED)

    @property
    def biased(self) -> bool:
        """Whether the factors are of what the biases leave."""
        return self.feedback == "explicit" and self.biases and not self.nonnegative

    def check(self) -> None:
        """Refuses settings that do not go together."""
        if self.debias and self.feedback == "explicit":
            where = f"als.debias={self.debias}, als.feedback=explicit"
            raise UserError("ratings cannot be weighted", where=where, fix="set als.debias=0, or als.feedback=implicit")
