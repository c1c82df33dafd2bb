"""Numbers and strangers' texts as people read them."""

from __future__ import annotations

from datetime import datetime

_JOINS_EMOJI = "\u200d"


def visible(text: str) -> str:
    """The text with what cannot be printed, such as control characters, as its escape code."""
    return "".join(c if c.isprintable() or c in f"\n{_JOINS_EMOJI}" else repr(c)[1:-1] for c in text)


def moment(when: datetime) -> str:
    """``2024-01-02 03:04:05``."""
    return when.strftime("%Y-%m-%d %H:%M:%S")


def number(value: float | None, digits: int = 0) -> str:
    """``12,345`` or ``0.1234``; a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def share(part: float, whole: float) -> str:
    """``12.3 %``; a dash of nothing."""
    return f"{part / whole:.1%}".replace("%", " %") if whole else "–"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 07 s`` or ``2 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def size(n_bytes: float) -> str:
    """``812 B``, ``4.1 kB``, ``12 MB``, in powers of 1000."""
    value = n_bytes
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def shortened(text: str, width: int) -> str:
    """At most ``width`` characters of it."""
    return text if len(text) <= width else text[: width - 1] + "…"
