"""HTML and SVG elements in which every plain text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

_JOINS_EMOJI = "\u200d"
_EMPTY = ("br", "meta", "circle", "line", "path", "rect")


class Markup(str):
    """Text that is markup already; any other text is escaped where it is put into an element."""

    __slots__ = ()


Child = str | Iterable[str] | None


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """An element.

    Args:
        name: Its name.
        children: Markup or plain texts, or sequences of them; None is left out.
        attributes: Names are written without underscores at their end and with hyphens in place of other ones; None is
            left out.
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY and not children:
        return Markup(f"<{name}{named}/>")
    return Markup(f"<{name}{named}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Markup and escaped texts, one after the other."""
    parts: list[str] = []
    for child in children:
        for part in [child] if isinstance(child, str) else child or ():
            parts.append(part if isinstance(part, Markup) else escaped(part))
    return Markup("".join(parts))


def escaped(text: str) -> Markup:
    """Plain text as markup; what cannot be printed, such as control characters, is written as its escape code."""
    shown = "".join(c if c.isprintable() or c in f"\n{_JOINS_EMOJI}" else repr(c)[1:-1] for c in text)
    return Markup(html.escape(shown, quote=True))


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
