"""A client of the daemon's socket."""

import json
import socket

from results import ordered


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(error)
        self.error = error
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data")


class Client:
    def __init__(self, path, timeout_s=15):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.buffer = b""
        self.last_id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def close(self):
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def line(self):
        """The next line without its newline; None at the end."""
        while b"\n" not in self.buffer:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                assert not self.buffer, f"a torn answer: {self.buffer!r}"
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def answer(self):
        """The next line, parsed."""
        line = self.line()
        assert line is not None, "the daemon closed the connection"
        return json.loads(line.decode("utf-8"), object_pairs_hook=ordered)

    def ask(self, data):
        """Send a line, get the parsed line that answers it."""
        self.send(data if isinstance(data, bytes) else data + "\n")
        return self.answer()

    def send_call(self, method, params=None):
        self.last_id += 1
        message = {"jsonrpc": "2.0", "id": self.last_id, "method": method}
        if params is not None:
            message["params"] = params
        self.send(json.dumps(message) + "\n")
        return self.last_id

    def call(self, method, **params):
        """A JSON-RPC call: its result, or RpcError."""
        return self.result(self.send_call(method, params or None))

    def result(self, call_id):
        answer = self.answer()
        assert answer["jsonrpc"] == "2.0" and answer["id"] == call_id
        assert ("result" in answer) != ("error" in answer)
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def error(self, method, **params):
        """A call that has to fail: its RpcError."""
        try:
            result = self.call(method, **params)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} {params} answered {result}")
