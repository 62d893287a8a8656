"""Processes that are forked off while backends are open: how they end.

The threads of a parent's backends are not in its child, and whatever frees these backends there
waits for them for ever: so nothing of them is freed, not by Python, and not by the C library, which
would run the destructors of their libraries as the process ends.
"""

import ctypes
from typing import Any


def abandon(held: Any) -> None:
    """Keep something until the process ends, and as it ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


def end_without_destructors() -> bool:
    """From now on this process ends as it would, its status too, but runs no C destructors.

    What Python has to do comes before: its own exit functions, and flushing its files. Those of
    the C library are flushed here.

    Returns:
        False where the C library cannot do it; glibc can.
    """
    libc = ctypes.CDLL(None)
    try:
        on_exit, ending, flush = libc.on_exit, libc._exit, libc.fcloseall
    except AttributeError:
        return False
    # The last one that is registered comes first. `_exit` gets the status as its first argument.
    on_exit.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return not (
        on_exit(ctypes.cast(ending, ctypes.c_void_p), None)
        or on_exit(ctypes.cast(flush, ctypes.c_void_p), None)
    )
