"""Its section in the configuration."""

from dataclasses import dataclass

from sparkrec.settings.setting import POSITIVE, setting


@dataclass(frozen=True)
class NewestConfig:
    """The items that came last."""

    half_life_days: float = setting(30.0, "days in which the score of an item halves", POSITIVE)
