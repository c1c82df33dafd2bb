"""Its section in the configuration."""

from dataclasses import dataclass

from sparkrec.settings.setting import Bounds, setting


@dataclass(frozen=True)
class NewestConfig:
    """The items that came last."""

    half_life_days: float = setting(30.0, Bounds(0, beyond=True))  # the score of an item halves with each
