"""What makes the processes that train and serve wait and end cheaply."""

import gc
import os
import sys
from zipimport import zipimporter


def wait_passively() -> None:
    """Lets OpenMP's threads sleep where they wait, unless the environment says otherwise.

    Threads that spin slow each other down ten times and more where others use the cores, too. OpenMP reads this once,
    as PyTorch is imported, so a program calls it before that.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def begin_task() -> None:
    """Begins a task in one of Spark's Python workers, after its imports.

    PySpark's worker collects garbage after each task and lists its zip files anew before each. With PyTorch loaded
    the two take some tenths of a second, more than most tasks. So what is there by now is taken out of the garbage
    collector's sight, and zip files are looked at again when something is imported from them.
    """
    gc.freeze()
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            del sys.path_importer_cache[path]
