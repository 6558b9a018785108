"""Proxies that remember who asked for what, and a port where nobody may knock."""

import socket
import threading


class Trap:
    """A listener; `knocks()` says how many connections came since the last time."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.listener.close()

    def knocks(self):
        count = 0
        try:
            while True:
                self.listener.accept()[0].close()
                count += 1
        except BlockingIOError:
            return count


class Proxy:
    """HTTP: forwards requests with absolute URIs, and CONNECT; or answers with `refuse` (bytes) to every request,
    or answers CONNECT with 200 and then `instead` of the server. SOCKS5 with a user and password if `socks` is True.

    `heads` has the head of each request, for SOCKS5 (user, password, host, port).
    """

    def __init__(self, refuse=None, instead=None, socks=False):
        self.refuse, self.instead, self.socks = refuse, instead, socks
        self.heads = []
        self.open = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.threads = []
        self.ended = False
        self.spawn(self.accept)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        with self.lock:
            self.ended = True
            for sock in [self.listener, *self.open]:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in [self.listener, *self.open]:
            sock.close()

    def spawn(self, target, *args):
        thread = threading.Thread(target=target, args=args)
        self.threads.append(thread)
        thread.start()

    def keep(self, sock):
        with self.lock:
            self.open.add(sock)
            if self.ended:
                sock.shutdown(socket.SHUT_RDWR)
        return sock

    def accept(self):
        try:
            while True:
                client = self.keep(self.listener.accept()[0])
                self.spawn(self.serve_socks if self.socks else self.serve, client)
        except OSError:
            pass

    def reach(self, host, port):
        return self.keep(socket.create_connection((host, port)))

    @staticmethod
    def pour(source, drain):
        """Everything from one to the other, then the end."""
        try:
            while data := source.recv(65536):
                drain.sendall(data)
            drain.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def tunnel(self, client, server):
        self.spawn(self.pour, server, client)
        self.pour(client, server)

    def serve(self, client):
        try:
            while head := self.read_head(client):
                self.heads.append(head)
                method, target, _ = head.split(" ", 2)
                if self.refuse is not None:
                    client.sendall(self.refuse)
                    client.shutdown(socket.SHUT_WR)
                    return
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    if self.instead is not None:
                        client.sendall(self.instead)
                        client.shutdown(socket.SHUT_WR)
                        return
                    host, _, port = target.rpartition(":")
                    self.tunnel(client, self.reach(host, int(port)))
                    return
                authority, _, path = target.removeprefix("http://").partition("/")
                host, _, port = authority.partition(":")
                server = self.reach(host, int(port))
                server.sendall(head.replace(target, "/" + path, 1).replace(
                    "\r\n", "\r\nConnection: close\r\n", 1).encode("latin-1"))
                server.shutdown(socket.SHUT_WR)
                self.pour(server, client)
                return
        except OSError:
            pass

    @staticmethod
    def read_head(client):
        """A request without a body, or None."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = client.recv(65536)
            if not data:
                return None
            head += data
        return head.decode("latin-1")

    def serve_socks(self, client):
        try:
            stream = client.makefile("rb")
            _, count = stream.read(2)
            assert 2 in stream.read(count)
            client.sendall(b"\x05\x02")         # user and password
            stream.read(1)
            user, password = stream.read(stream.read(1)[0]), stream.read(stream.read(1)[0])
            client.sendall(b"\x01\x00")
            _, _, _, kind = stream.read(4)
            host = socket.inet_ntoa(stream.read(4)) if kind == 1 else stream.read(stream.read(1)[0]).decode()
            port = int.from_bytes(stream.read(2), "big")
            self.heads.append((user.decode(), password.decode(), host, port))
            client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            self.tunnel(client, self.reach(host, port))
        except (OSError, ValueError, IndexError):
            pass
