"""Who may ask: API keys from a file."""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ganinfer.api_keys import read_api_keys
from ganinfer.server.answers import error_answer
from ganinfer.server.playground import PATHS

# Probes come from whoever runs the machine, without a key; the page has a field for one.
OPEN_PATHS = PATHS | {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
NO_KEY = "expected Authorization: Bearer <key>, or x-api-key"


def read_keys(path: Path) -> list[bytes]:
    """The sha256 of each key of a file; errors as of `read_api_keys`."""
    return [sha256(key.encode()).digest() for key in read_api_keys(path)]


def shows_key(headers: Mapping[str, str], keys: list[bytes]) -> bool:
    """Whether one of the keys is shown, as `Authorization: Bearer <key>` or `x-api-key: <key>`.

    It takes the same time for every wrong key.

    Args:
        headers: by their names in lower case; Latin-1.
        keys: of `read_keys`.
    """
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    key = shown.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    digest = sha256(key.encode("latin-1")).digest()  # the bytes that were sent
    return sum(hmac.compare_digest(digest, known) for known in keys) > 0


class Keys:
    """Lets those through that show a key; see `shows_key`."""

    def __init__(self, inner: ASGIApp, keys: list[bytes]) -> None:
        self._inner, self._keys = inner, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and scope["path"] not in OPEN_PATHS
        if guarded and not shows_key(Headers(scope=scope), self._keys):
            answer = error_answer(scope["path"], 401, NO_KEY)
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
        else:
            await self._inner(scope, receive, send)
