"""Broadcasts of arrays, with and without Spark's encryption.

With ``spark.io.encryption.enabled`` PySpark 4.0 sends a broadcast's pickle through ``serializers.ChunkedStream``,
which takes nothing but ``bytes``; pickle hands the memory of a large array over as a ``PickleBuffer``. So the value is
pickled to bytes first, and unpacked where it is loaded, once in each Python worker.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import SparkSession

T = TypeVar("T")


def broadcast(spark: SparkSession, value: T) -> Broadcast[T]:
    """Sends an object to every executor.

    Args:
        spark: The session.
        value: Anything that pickle takes, arrays of any size among it.

    Returns:
        The broadcast; in a task its ``value`` is an object equal to ``value``.
    """
    return spark.sparkContext.broadcast(cast("T", _Packed(value)))


class _Packed(Generic[T]):
    """What becomes ``value`` again when it is unpickled."""

    def __init__(self, value: T) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (pickle.dumps(self.value, protocol=5),)
