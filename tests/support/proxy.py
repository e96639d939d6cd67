"""A proxy that the tests own: it tunnels CONNECT to wherever it is asked, or to one place, and remembers who asked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from types import TracebackType
from typing import Self


class FakeProxy:
    """An HTTP proxy at ``url`` for tunnels, used as a context manager; it runs in a thread."""

    def __init__(
        self,
        *,
        refuse_with: int | None = None,
        say: bytes | None = None,
        lead_to: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``refuse_with``: answer CONNECT with this status; ``say``: with these bytes, and hang up. ``lead_to``: the
        local port that all tunnels end at. ``tls``: speak TLS with clients."""
        self.heads: list[str] = []
        """The request line and headers of every CONNECT."""
        self.port = 0
        self._refuse_with = refuse_with
        self._say = say
        self._tls = tls
        self._lead_to = lead_to
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-proxy", daemon=True)
        self._started = threading.Event()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            if self._refuse_with is not None:
                writer.write(f"HTTP/1.1 {self._refuse_with} No\r\ncontent-length: 2\r\n\r\nno".encode())
                await writer.drain()
            elif self._say is not None:
                writer.write(self._say)
                await writer.drain()
            else:
                await self._tunnel(head.split(" ")[1], reader, writer)

    async def _tunnel(self, place: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = place.rpartition(":")
        if self._lead_to is not None:
            host, port = "127.0.0.1", str(self._lead_to)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with contextlib.closing(far_writer):
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
