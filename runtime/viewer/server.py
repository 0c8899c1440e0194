"""Serving a view to a browser: on this machine alone unless told otherwise, and read-only.

A request names a file of the page, or a tile by three numbers. No path of the file system is ever
made from it, so there is no folder to climb out of.
"""

import errno
import ipaddress
import os
import re
import socket
import socketserver
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from mercantile import Tile

from c2gm.runtime.errors import C2GMError, ServeError
from c2gm.runtime.viewer.page import View, page_files
from c2gm.runtime.viewer.source import MEDIA_TYPES, picture_suffix

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8017

_TILE = re.compile(r"/([a-z]+)/([0-9]{1,2})/([0-9]{1,10})/([0-9]{1,10})\.([a-z]+)")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The next map on this port has other tiles at the same addresses.
    "Cache-Control": "no-store",
    "Allow": "GET, HEAD",
}


class ViewServer(ThreadingHTTPServer):
    """A view on a port, made by `open_server`; a context manager, `serve_forever` serves."""

    daemon_threads = True  # a browser's idle connection does not hold up the end
    allow_reuse_address = os.name == "posix"  # elsewhere it would share a port that is taken

    def __init__(self, view: View, host: str, port: int, note: Callable[[str], None]) -> None:
        self.layers = view.layers
        self.files = page_files(view)
        self.note = note
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._noted: set[str] = set()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without asking a name server who we are, which waits where there is no network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return ipaddress.ip_address(str(self.server_address[0])).is_loopback

    @property
    def url(self) -> str:
        """What to type into a browser; with this machine's name where it listens everywhere."""
        address = ipaddress.ip_address(str(self.server_address[0]))
        if address.is_unspecified:
            return f"http://{socket.gethostname()}:{self.server_port}/"
        shown = f"[{address}]" if address.version == 6 else str(address)
        return f"http://{shown}:{self.server_port}/"

    def accepts(self, host: str | None) -> bool:
        """Whether a request's `Host` is one of ours: what is on the loopback is nobody else's.

        Otherwise a web page could give its own name our address, and read the map (DNS rebinding).
        """
        names = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        return not self.is_loopback or host in names | {self.url[len("http://") : -1]}

    def note_once(self, message: str) -> None:
        """Tell the user, not at every tile."""
        if message not in self._noted:
            self._noted.add(message)
            self.note(message)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def open_server(view: View, host: str, port: int | None, note: Callable[[str], None]) -> ViewServer:
    """Listen. Port 0 is any free one, None the usual one or else any free one. Raises ServeError.

    `note` is told, once each, what tiles could not be read.
    """
    try:
        try:
            return ViewServer(view, host, DEFAULT_PORT if port is None else port, note)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise
            return ViewServer(view, host, 0, note)
    except OverflowError:
        raise ServeError(f"port {port} does not exist, expected 0 to 65535") from None
    except OSError as error:
        what = {
            errno.EADDRINUSE: f"port {port} is taken; give another --port, or 0 for any free one",
            errno.EACCES: f"port {port} is not for ordinary users; give --port 1024 or more",
            errno.EADDRNOTAVAIL: f"{host} is not an address of this machine; give another --host",
        }.get(error.errno or 0, f"cannot listen on {host} ({error}); give another --host or --port")
        raise ServeError(what) from None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "c2gm-view", ""
    error_message_format, error_content_type = "%(code)d %(message)s\n", "text/plain"
    timeout = 60

    @property
    def _view(self) -> ViewServer:
        return cast(ViewServer, self.server)

    def do_GET(self) -> None:
        """A file of the page, or a tile."""
        if not self._view.accepts(self.headers.get("Host")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path = self.path.partition("?")[0]
        file = self._view.files.get("index.html" if path == "/" else path[1:])
        if file is not None:
            self._answer(file.data, file.media_type)
            return
        try:
            tile = self._tile(path)
        except C2GMError as error:
            self._view.note_once(f"warning: {error}")
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "the tile cannot be read")
            return
        if tile is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._answer(tile, MEDIA_TYPES[picture_suffix(tile) or "png"])

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _tile(self, path: str) -> bytes | None:
        match = _TILE.fullmatch(path)
        source = self._view.layers.get(match[1]) if match else None
        if match is None or source is None or match[5] != source.suffix:
            return None
        z, x, y = (int(number) for number in match.group(2, 3, 4))
        return source.get_tile(Tile(x, y, z)) if max(x, y) < 1 << z and z in source.levels else None

    def _answer(self, data: bytes, media_type: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def end_headers(self) -> None:
        """What every answer carries, errors too."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a tile is not worth a line."""
