"""How the threads of PyTorch's OpenMP wait for one another."""

import os


def wait_passively() -> None:
    """Lets OpenMP's threads sleep where they wait, unless the environment says otherwise.

    Threads that spin slow each other down ten times and more where others use the cores, too. OpenMP reads this once,
    as PyTorch is imported, so a program calls it before that.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
