"""The server of gRPC, in the event loop of the one of HTTP."""

import asyncio
import socket

import grpc

from ganinfer.errors import ConfigError
from ganinfer.server.rpc.door import Door
from ganinfer.server.rpc.health import health_handlers
from ganinfer.server.rpc.v2 import inference_handlers
from ganinfer.server.running import address_of
from ganinfer.server.service import Service


class RpcServer:
    """Answers over gRPC what a service has."""

    def __init__(self, service: Service, bound: socket.socket, *, shared: bool = False) -> None:
        """bound: a socket that keeps the address until the server takes it.

        shared: with other processes.
        """
        self._service, self._bound, self._shared = service, bound, shared
        self._reading: set[asyncio.Task[None]] = set()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen, and answer on this event loop.

        Raises:
            ConfigError: somebody has the address.
        """
        address = address_of(self._bound)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._service.serving.max_body_bytes),
                ("grpc.max_send_message_length", -1),  # the limit of images is that of requests
                # Else a second server would share the port unheard.
                ("grpc.so_reuseport", int(self._shared)),
            ]
        )
        door = Door(self._service)
        handlers = (
            inference_handlers(self._service, door, self._reading),
            health_handlers(self._service, door),
        )
        server.add_generic_rpc_handlers(handlers)
        self._bound.close()
        try:
            server.add_insecure_port(address)
        except RuntimeError:
            raise ConfigError(f"{address}: somebody has it; choose another --grpc-port") from None
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, and end those that are begun within a time.

        It may be called again, with less time.
        """
        for task in list(self._reading):
            task.cancel()
        if self._server is not None:
            await self._server.stop(grace_s)
