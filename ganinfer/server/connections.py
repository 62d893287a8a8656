"""Connections as uvicorn has them, with bounds on what a client may keep waiting."""

import asyncio
import json
import math
from collections import deque
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Bytes of a request line and its headers, before the last that are read at once.
MAX_HEAD = 64 << 10
HEAD_S = 10.0  # within which they have to come
READ_S = 30.0  # within which a client has to read something of its answer
LAST_S = 0.5  # at the end, that a request has which is on its way


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    uvicorn itself waits for ever for the head of a request, takes one of any size, keeps an answer
    until it is read, drops what arrives at the moment when it stops, and answers junk before the
    requests that it stands behind.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unanswered: deque[RequestResponseCycle] = deque()  # in their order
        self._in_head, self._head_size = False, 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._deaf = False  # for what else comes
        self._stopping = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_S, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_is_there()
        self._take_back()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        super().data_received(data)
        if not self._in_head:
            return
        self._head_size += len(data)
        if self._head_size > MAX_HEAD:
            self._refuse("431 Request Header Fields Too Large", f"head: at most {MAX_HEAD} bytes")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._late)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        if self._stopping:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()
        self._expect_reader()

    def send_400_response(self, msg: str) -> None:
        """Called for bytes that are no request, or no body of one."""
        self._refuse("400 Bad Request", msg)

    def shutdown(self) -> None:
        """The server stops: what is begun is answered, and what comes in this moment."""
        self._stopping = True
        if self._unanswered:
            self.cycle.keep_alive = False
        else:  # in two steps: however late the loop is, it has read in between
            half_s = LAST_S / 2
            self.loop.call_later(half_s, self.loop.call_later, half_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not self._unanswered:
            self.transport.close()

    def _head_is_there(self) -> None:
        self._in_head, self._head_size = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        if self._in_head:
            self._refuse("408 Request Timeout", f"the head was not there in {HEAD_S:g} s")
        else:
            self.transport.close()  # nothing has come at all

    def _refuse(self, status: str, why: str) -> None:
        """Tell why the connection ends, or end it behind the answers that are under way."""
        self._deaf = True
        self._head_is_there()
        if self._unanswered and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if len(self._unanswered) <= 1:  # else the client would take it for another answer
            body = json.dumps({"error": why})
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())
        self._take_back()
        self.transport.close()

    def _take_back(self) -> None:
        """Requests that nobody waits for any more."""
        while self._unanswered:
            cycle = self._unanswered.popleft()
            cycle.disconnected = True
            cycle.message_event.set()

    def _expect_reader(self, before: float = math.inf) -> None:
        """Look after a while whether the client has read something of what waits for it."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self._take_back()
            self.transport.abort()
        elif left:
            self.loop.call_later(READ_S, self._expect_reader, left)
