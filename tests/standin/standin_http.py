"""HTTP/1.1 on one connection: bytes in, one exchange at a time, bytes out.

Written on bare asyncio protocols for two reasons: speed (thousands of requests a second on one
core) and the right to break every rule of HTTP on purpose. Runs on the event loop.
"""

import asyncio
import json
import socket
import struct

from standin_admin import admin

REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 302: "Found", 400: "Bad Request",
           401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
           409: "Conflict", 410: "Gone", 425: "Too Early", 429: "Too Many Requests", 500: "Internal Server Error",
           501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}
BODYLESS = (204, 304)
MAX_HEAD = 64 * 1024
PIECE = 64 * 1024       # longer bodies go out in such pieces, as fast as the client takes them


class Connection(asyncio.Protocol):
    """State: `buffer` holds what was read and not understood yet; `busy` while an answer is owed."""

    def __init__(self, pulse, loop):
        self.pulse = pulse
        self.loop = loop
        self.transport = None
        self.number = 0
        self.buffer = b""
        self.busy = False
        self.entry = None       # the log entry of the exchange that is still open
        self.pieces = None      # what is left of a long body
        self.paused = False

    # -- asyncio ----------------------------------------------------------------------------

    def connection_made(self, transport):
        self.transport = transport
        self.number = self.pulse.connected(self)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _error):
        self.pulse.disconnected(self)
        if self.entry is not None:
            self.pulse.finish(self.entry, "client left")
            self.entry = None

    def data_received(self, data):
        self.buffer += data
        while not self.busy and self.buffer and not self.transport.is_closing():
            if not self.next_request():
                break

    # -- requests ---------------------------------------------------------------------------

    def next_request(self):
        """Take one request off the buffer; False when it isn't complete yet."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > MAX_HEAD:
                self.abort()
            return False
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = []
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(":")
            value = value.strip(" \t")
            headers.append([name, value])
            if name.lower() == "content-length" and value.isdigit():
                length = int(value)
        if len(self.buffer) < end + 4 + length:
            return False
        body = self.buffer[end + 4:end + 4 + length]
        self.buffer = self.buffer[end + 4 + length:]

        method, _, rest = lines[0].partition(" ")
        target, _, _version = rest.rpartition(" ")
        if target.startswith("/_standin/"):
            status, answer = admin(self.pulse, method, target, body)
            self.send(status, {"Content-Type": "application/json"}, json.dumps(answer).encode())
            return True
        self.busy = True
        self.entry = self.pulse.arrive(self.number, method, target, headers, len(body))
        plan = self.pulse.judge(self.entry)
        self.perform(plan)
        return True

    # -- answers ----------------------------------------------------------------------------

    def perform(self, plan):
        """Wait as the plan says (a gate, then a delay), then do it."""
        if plan.gate is not None:
            gate, plan.gate = plan.gate, None
            self.pulse.wait_at(gate, lambda: self.perform(plan))
        elif plan.delay_ms:
            delay_ms, plan.delay_ms = plan.delay_ms, 0
            self.loop.call_later(delay_ms / 1000, self.perform, plan)
        elif plan.hang is not None and self.entry is not None:
            hang, plan.hang = plan.hang, None
            if hang == "after":
                self.pulse.take_effect(self.entry, plan)
                plan.effect = None
            self.pulse.wait_at("never", lambda: self.perform(plan))
        elif self.entry is not None:
            self.carry_out(plan)

    def carry_out(self, plan):
        self.pulse.take_effect(self.entry, plan)
        entry = self.entry
        entry["status"] = None if plan.reset else plan.status
        if plan.reset or plan.raw is not None or plan.truncate is not None or len(plan.body) <= PIECE:
            self.entry = None
        if plan.reset:
            self.pulse.finish(entry, f"reset {plan.reset}")
            self.abort()
            return
        if plan.raw is not None:
            self.transport.write(plan.raw)
            self.pulse.finish(entry, "raw")
            self.transport.close()
            return
        body, cut = plan.body, plan.truncate
        if cut is not None:
            self.pulse.finish(entry, "truncated")
            entry["body_sent"] = len(body[:cut])
            self.send(plan.status, plan.headers, body[:cut], max(len(body), cut + 1))
            self.transport.close()
            return
        if len(body) > PIECE:
            self.send_pieces(plan)
            return
        entry["body_sent"] = len(body)
        self.pulse.finish(entry, str(plan.status))
        self.send(plan.status, plan.headers, body)
        self.next(plan)

    def send_pieces(self, plan):
        """A body that is too long to be handed over at once: the log entry's `body_sent` tells how
        much of it the client took, but for what fits into the buffers of two sockets."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        self.transport.set_write_buffer_limits(high=PIECE)
        self.send(plan.status, plan.headers, b"", len(plan.body))
        self.pieces = plan, memoryview(plan.body)
        self.send_piece()

    def send_piece(self):
        while self.pieces is not None and not self.paused and not self.transport.is_closing():
            plan, rest = self.pieces
            self.entry["body_sent"] += len(rest[:PIECE])
            self.pieces = (plan, rest[PIECE:]) if len(rest) > PIECE else None
            self.transport.write(bytes(rest[:PIECE]))
            if self.pieces is None:
                entry, self.entry = self.entry, None
                self.pulse.finish(entry, str(plan.status))
                self.next(plan)

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False
        self.loop.call_soon(self.send_piece)    # not amid the transport's own writing

    def next(self, plan):
        """The answer is out."""
        if plan.close:
            self.transport.close()
        self.busy = False
        if self.buffer:
            self.loop.call_soon(self.data_received, b"")

    def send(self, status, headers, body, length=None):
        head = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n"]
        head += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if status not in BODYLESS:
            head.append(f"Content-Length: {len(body) if length is None else length}\r\n")
        else:
            body = b""
        head.append("\r\n")
        self.transport.write("".join(head).encode("latin-1") + body)

    def abort(self):
        """Close with a TCP reset: linger for zero seconds."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
