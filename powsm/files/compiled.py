"""Loops that are compiled, their machine code kept on disk where there is a place."""

from collections.abc import Callable

import numba


def jit(function: Callable) -> Callable:
    """Compile a function of arrays and numbers when it is first called."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # an installation nobody may write to, and no home folder
        return numba.njit(nogil=True)(function)
