"""``sparkrec look``: what a log of unknown making is, and a format and a night for it. Needs no Spark.

Some rows of some files are read (``files``, ``dialect``), the columns are given their roles (``times``, ``roles``),
shipped formats are tried (``shipped``), the rows become events as a night would make them (``events``), what they say
of the log is counted (``facts``), and a format and a night are written down (``proposal``, ``page``).
"""

from __future__ import annotations

from sparkrec.look.run import look

__all__ = ["look"]
