"""A SOCKS5 proxy on loopback, as a gateway to hosts whose names it alone resolves.

What RFC 1928 asks of a client that wants a connection: a greeting without a login, then
CONNECT with the name of a host. All names are this machine.

    with SocksServer() as proxy:
        run(..., env={**os.environ, "ALL_PROXY": proxy.url})
        assert proxy.asked == ["hub.test"]
"""

import socket
import socketserver
import threading

_VERSION, _CONNECT, _BY_NAME, _DONE = 5, 1, 3, 0


class SocksServer(socketserver.ThreadingTCPServer):
    """The proxy in threads of this process.

    Attributes:
        url: what ALL_PROXY is to be; the proxy, not the client, resolves names.
        asked: host of each connection.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"socks5h://127.0.0.1:{self.server_address[1]}"
        self.asked: list[str] = []

    def __enter__(self) -> "SocksServer":
        self._thread = threading.Thread(target=self.serve_forever, args=[0.05])
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        version, n_methods = self._read(2)
        assert version == _VERSION
        self._read(n_methods)
        self.request.sendall(bytes([_VERSION, 0]))  # no login
        version, command, _, kind = self._read(4)
        assert (version, command, kind) == (_VERSION, _CONNECT, _BY_NAME)
        host = self._read(self._read(1)[0]).decode()
        port = int.from_bytes(self._read(2), "big")
        self.server.asked.append(host)
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.request.sendall(bytes([_VERSION, _DONE, 0, 1, *bytes(6)]))
            back = threading.Thread(target=_pass_on, args=[there, self.request])
            back.start()
            _pass_on(self.request, there)
            back.join()

    def _read(self, n_bytes: int) -> bytes:
        data = b""
        while len(data) < n_bytes:
            more = self.request.recv(n_bytes - len(data))
            if not more:
                raise ConnectionError("the client went away")
            data += more
        return data


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Bytes one way until the end, which is passed on as well."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the other side is gone
        pass
