"""A Unix socket to listen on: taken over from a server that is no more, and removed at the end."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ganinfer.errors import ConfigError

_USER_AND_GROUP = 0o660


@contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """A socket at a path, which its user and group may connect to.

    It listens at once, so that another server sees that this one is there; who connects waits.

    Raises:
        ConfigError: something else is there, a server listens there, or there can be no socket.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(f"{path}: this system has no Unix sockets; use --host and --port")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.setblocking(False)  # see ganinfer.server.running.listening
        try:
            _make_room(path)
            bound.bind(os.fspath(path))
            path.chmod(_USER_AND_GROUP)
            bound.listen()
            own = path.stat().st_ino
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}; choose another --uds") from None
        try:
            yield bound
        finally:
            with suppress(OSError):  # somebody else may have removed or replaced it
                if path.stat().st_ino == own:
                    path.unlink()


def _make_room(path: Path) -> None:
    """Remove the socket of a server that is no more; errors as of `unix_socket`, and OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path}: is there, and is no socket; choose another --uds")
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full
            pass
    raise ConfigError(f"{path}: a server listens there; stop it, or choose another --uds")
