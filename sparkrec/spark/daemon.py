"""Spark's Python daemon of a session of this machine, with what its workers need already loaded.

Each of Spark's Python workers is a copy of the daemon (a fork), and would load numpy, pandas, Arrow and PyTorch for
itself: seconds each, and again whenever Spark has let idle ones go. The libraries start no threads when they are
loaded, so copies are whole. Source: Spark's setting ``spark.python.daemon.module``.
"""

import gc

import numpy  # noqa: F401
import pandas  # noqa: F401
import pyarrow  # noqa: F401
import torch  # noqa: F401
from pyspark.daemon import manager

if __name__ == "__main__":
    gc.freeze()  # what is loaded is looked at by no worker's garbage collector, and stays in shared memory
    manager()
