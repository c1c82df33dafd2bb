"""A setting: its default, what it means, and what it may be, beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

from sparkrec.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """What a number may be. Null passes where the setting may be null; NaN and infinity never do.

    Attributes:
        low: The smallest value.
        high: The largest.
        beyond: Whether the smallest itself is too small.
        short_of: Whether the largest itself is too large.
        least: Of a list: how many values it must have.
    """

    low: float
    high: float = math.inf
    beyond: bool = False
    short_of: bool = False
    least: int = 0

    def holds(self, value: float) -> bool:
        """Whether a number is within them."""
        above = value > self.low if self.beyond else value >= self.low
        below = value < self.high if self.short_of else value <= self.high
        return above and below and math.isfinite(value)

    @property
    def said(self) -> str:
        """In words."""
        low = f"more than {self.low:g}" if self.beyond else f"at least {self.low:g}"
        if math.isinf(self.high):
            return low
        if not self.beyond and not self.short_of:
            return f"from {self.low:g} to {self.high:g}"
        return f"{low} and {'less than' if self.short_of else 'at most'} {self.high:g}"


def setting(
    default: Any,
    meaning: str = "",
    bounds: Bounds | None = None,
    choices: Sequence[str] = (),
    *,
    tried: Sequence[Any] = (),
    effort: bool = False,
) -> Any:
    """A field of a section of the configuration.

    Args:
        default: Its default; a list or mapping is copied.
        meaning: What ``conf/base.yaml`` says of it: with its unit, and the choices by name.
        bounds: Of a number, or of each of a list's.
        choices: Of a text.
        tried: Values that ``tune`` tries.
        effort: Whether a training takes as long as this is large: ``tune`` tries most settings with less of it.
    """
    about = {
        "meaning": meaning, "bounds": bounds, "choices": tuple(choices), "tried": tuple(tried), "effort": effort,
    }  # fmt: skip
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy(default), metadata=about)
    return field(default=default, metadata=about)


def section(of: type, meaning: str = "") -> Any:
    """A field that is a section of its own, with the defaults of its dataclass."""
    return field(default_factory=of, metadata={"meaning": meaning})


def walked(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, Field[Any]]]:
    """Every setting of a section and of those below it: its dotted name, its value, its field."""
    for one in fields(settings):
        value, dotted = getattr(settings, one.name), f"{prefix}{one.name}"
        if is_dataclass(value):
            yield from walked(value, f"{dotted}.")
        else:
            yield dotted, value, one


COUNT, COUNT_OR_NONE, PAIR = Bounds(1), Bounds(0), Bounds(2)  # of things; of things or none at all; two or more
POSITIVE, NOT_NEGATIVE = Bounds(0, beyond=True), Bounds(0)  # of a continuous size
SHARE, INNER_SHARE = Bounds(0, 1), Bounds(0, 1, beyond=True, short_of=True)
DROPPED = Bounds(0, 1, short_of=True)  # a share that leaves something
STRENGTH = Bounds(-10, 10)  # an exponent or a factor of a logarithm; a negative one turns it round
MARGIN = Bounds(-100, 1)  # a share below something; negative: above it
SEED = Bounds(0, 2**31 - 1)
COUNTS, WIDTHS = Bounds(1, least=1), Bounds(1)  # lists: one value or more; also none


def check_declared(settings: Any) -> None:
    """Refuses settings that are not what their fields allow.

    Raises:
        UserError: The first of them.
    """
    for dotted, value, one in walked(settings):
        bounds, choices = one.metadata.get("bounds"), one.metadata.get("choices")
        if bounds is not None:
            check_bounds(dotted, value, bounds)
        if choices and value not in choices:
            raise UserError("wrong configuration value", where=f"{dotted}={value}", fix=f"one of {', '.join(choices)}")


def check_bounds(dotted: str, value: float | list[float] | None, bounds: Bounds) -> None:
    """Refuses a setting outside of its bounds.

    Raises:
        UserError: It, or one of a list's values, is; or the list is too short.
    """
    values = value if isinstance(value, list) else [] if value is None else [value]
    wrong = [one for one in values if not bounds.holds(one)]
    few = isinstance(value, list) and len(value) < bounds.least
    if wrong or few:
        fix = f"{bounds.said}{', each' if isinstance(value, list) else ''}{', one or more' if few else ''}"
        raise UserError("wrong configuration value", where=f"{dotted}={value}", fix=fix)
