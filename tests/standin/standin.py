#!/usr/bin/env python3
"""A stand-in for the Pulse API: its cancel routes, its answers, and every way it can go wrong.

    /usr/bin/python3 standin.py [--port N] [--key KEY ...] [--port-file FILE] [--https CERT KEY]

Prints `listening on http://127.0.0.1:PORT` when it is ready and ends on SIGTERM or SIGINT.
README.md beside this file has the script of faults and examples.
"""

import argparse
import asyncio
import os
import signal
import socket
import ssl

from standin_http import Connection
from standin_model import Pulse


def arguments():
    parser = argparse.ArgumentParser(description="A stand-in for the Pulse API.")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--key", action="append", help="an API key that is good (may be repeated; default: test-key)")
    parser.add_argument("--port-file", help="write the port here, by rename, once it is open")
    parser.add_argument("--https", nargs=2, metavar=("CERT", "KEY"), help="speak TLS with this certificate (PEM)")
    return parser.parse_args()


def write_port(path, port):
    scratch = f"{path}.{os.getpid()}"
    with open(scratch, "w", encoding="ascii") as file:
        file.write(f"{port}\n")
    os.rename(scratch, path)


async def serve(args):
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    context = None
    if args.https:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*args.https)

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", args.port))
    port = listener.getsockname()[1]

    pulse = Pulse(args.key or ["test-key"])
    server = await loop.create_server(lambda: Connection(pulse, loop), sock=listener, ssl=context, backlog=1024)
    if args.port_file:
        write_port(args.port_file, port)
    print(f"listening on http{'s' if args.https else ''}://127.0.0.1:{port}", flush=True)

    await stop.wait()
    server.close()
    for connection in list(pulse.connections):
        connection.abort()


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
