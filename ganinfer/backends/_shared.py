"""Loaded generators that several samplers of a process share, so that weights are there once.

A second onnxruntime or OpenVINO over a graph costs four times the graph's file, for what it packs
and lays out anew. On a GPU each sampler has its own, which is bound to memory and streams.
"""

import os
import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary, WeakValueDictionary

from ganinfer.backends._base import Backend

Key = tuple[str, ...]

# Weakly, so that those of a sampler that nobody closed may go.
_lock = threading.Lock()
_opened: WeakValueDictionary[Key, Backend] = WeakValueDictionary()
_users: WeakKeyDictionary[Backend, int] = WeakKeyDictionary()


def shared(key: Key, open_new: Callable[[], Backend]) -> Backend:
    """The backend of that key, or a new one; whoever has it gives it back by `release`."""
    with _lock:
        if (found := _opened.get(key)) is not None:
            _users[found] += 1
            return found
    made = open_new()
    with _lock:
        found = _opened.setdefault(key, made) if made.device == "cpu" else made
        _users[found] = _users.get(found, 0) + 1
    if found is not made:  # another thread was faster
        made.close()
    return found


def release(backend: Backend) -> None:
    """Close a backend, once nobody else has it."""
    with _lock:
        users = _users.pop(backend, 1) - 1
        if users:
            _users[backend] = users
            return
        for key in [key for key, held in _opened.items() if held is backend]:
            del _opened[key]
    backend.close()


def _forget() -> None:
    """In a process that was forked off: their threads are not here."""
    global _lock
    _lock = threading.Lock()
    _opened.clear()
    _users.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
