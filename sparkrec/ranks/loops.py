"""How loops are compiled: by numba, at their first call, and kept in its cache beside their file where it can write.

A cached loop is compiled anew when its own file changes, not when another one's does: a loop and what it calls belong
into one file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import ZipCacheLocator


class ShippedLocator(ZipCacheLocator):  # type: ignore[misc]
    """Where the cache is of loops that came in a zip file (spark-submit --py-files): in the user's cache folder.

    Numba's own place for them depends on the path of the file, which Spark makes anew for every application: all would
    be compiled each night, and each would leave its folder behind. Here it depends on the place within the file, and
    numba's stamp says whether the code is still the same.
    """

    def __init__(self, py_func: Any, py_file: str) -> None:
        """See ``numba.core.caching``."""
        super().__init__(py_func, py_file)
        inside = hashlib.sha1(os.path.dirname(self._internal_path).encode(), usedforsecurity=False).hexdigest()
        self._cache_path = os.path.join(os.path.dirname(self._cache_path), f"shipped_{inside}")

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> ShippedLocator | None:
        """None where the code is in no zip file, or the user has no folder that can be written to."""
        if ".zip" + os.sep not in py_file:
            return None
        locator = cls(py_func, py_file)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


def loop(reorder: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator for loops. With numpy's error model a division does not stop a loop of several lanes.

    Args:
        reorder: Whether sums may be reordered; not-a-number and infinity stay what they are.
        options: Further ones of ``numba.njit``.
    """
    options |= {"nogil": True, "error_model": "numpy"}
    options["fastmath"] = {"reassoc", "contract", "nsz", "arcp"} if reorder else False

    def decorate(loop: Callable[..., Any]) -> Any:
        config: Any = numba.config
        usual = config.CACHE_LOCATOR_CLASSES
        if ".zip" + os.sep in loop.__code__.co_filename:
            config.CACHE_LOCATOR_CLASSES = f"{__name__}.{ShippedLocator.__name__}"
        try:
            return numba.njit(cache=True, **options)(loop)
        except RuntimeError:  # no folder that the cache can be written to
            return numba.njit(**options)(loop)
        finally:
            config.CACHE_LOCATOR_CLASSES = usual

    return decorate
