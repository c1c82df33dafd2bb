"""The matrix product that PyTorch itself calls, made known to compiled loops."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from numba import types

_SYMBOL = "sparkrec_sgemm"
sgemm: Any = types.ExternalFunction(_SYMBOL, types.void(*[types.intp] * 13))  # the addresses of BLAS's 13 arguments


def provide() -> None:
    """Makes ``sgemm`` known to numba's linker; a loop that calls it can be compiled, or loaded, only afterwards.

    It is PyTorch's where its library shows it, else scipy's, which takes twice the time for few rows.
    """
    import llvmlite.binding as llvm

    llvm.add_symbol(_SYMBOL, _torch_address() or _scipy_address())


def _torch_address() -> int | None:
    import torch

    try:
        routine = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).sgemm_
    except (OSError, AttributeError):
        return None
    return ctypes.cast(routine, ctypes.c_void_p).value


def _scipy_address() -> int:
    from scipy.linalg import cython_blas

    capsule, api = cython_blas.__pyx_capi__["sgemm"], ctypes.pythonapi
    name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))(capsule)
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", api))
    return int(pointer(capsule, name))
