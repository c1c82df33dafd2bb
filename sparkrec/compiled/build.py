"""How loops are compiled: by numba, at their first call, and kept in its cache beside their file where it can write.

A cached loop is compiled anew when its own file changes, not when another one's does: a loop and what it calls belong
into one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def loop(reorder: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator for loops. With numpy's error model a division does not stop a loop of several lanes.

    Args:
        reorder: Whether sums may be reordered; not-a-number and infinity stay what they are.
        options: Further ones of ``numba.njit``.
    """
    options |= {"nogil": True, "error_model": "numpy"}
    options["fastmath"] = {"reassoc", "contract", "nsz", "arcp"} if reorder else False

    def decorate(loop: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(loop)
        except RuntimeError:  # no folder that the cache can be written to
            return numba.njit(**options)(loop)

    return decorate
