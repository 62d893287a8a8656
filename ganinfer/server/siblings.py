"""The processes of one server: what each has counted, for whoever asks any of them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

_PATIENCE_S = 1.0  # with one that does not answer


class Siblings:
    """The workers of a server, by their numbers; each listens on a socket in their folder.

    Who connects there gets the worker's figures in JSON, and nothing else.
    """

    def __init__(self, folder: Path, number: int, count: int) -> None:
        """The worker of a number, one of so many; folder: which nobody else can enter."""
        self._folder, self._number, self._count = folder, number, count

    @asynccontextmanager
    async def telling(self, own: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
        """Within it the others can ask for what `own` gives."""

        async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(json.dumps(own()).encode())
            writer.close()

        place = self._folder / str(self._number)
        place.unlink(missing_ok=True)  # of one that died, and that this one stands for
        server = await asyncio.start_unix_server(tell, os.fspath(place))
        try:
            yield
        finally:
            server.close()
            place.unlink(missing_ok=True)

    def remove_folder(self) -> None:
        """Unless another worker is in it yet; for when nobody else does it."""
        with suppress(OSError):
            self._folder.rmdir()

    async def figures(self, own: dict[str, Any]) -> dict[int | None, dict[str, Any]]:
        """Those of each worker that answers, by its number; `own` are those of this one."""
        numbers = range(self._count)
        found = await asyncio.gather(
            *(self._asked(number) for number in numbers if number != self._number)
        )
        found.insert(self._number, own)
        return {n: one for n, one in zip(numbers, found, strict=True) if one is not None}

    async def _asked(self, number: int) -> dict[str, Any] | None:
        place = self._folder / str(number)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_unix_connection(os.fspath(place))
                try:
                    found: dict[str, Any] = json.loads(await reader.read())
                finally:
                    writer.close()
        except (OSError, ValueError):  # it starts, or ends; TimeoutError is an OSError
            return None
        return found
