"""Submits job after job on the socket until a file appears; run by tests/boot/inside as a user.

    submit.py SOCKET STOP ACKNOWLEDGED

One connection a request. A refusal by a daemon that is being stopped, or an answer that never comes, is
followed by the same request_id again, as README.md says; a refused connection is an error, since the
socket must never be away. Request IDs that were acknowledged are written to ACKNOWLEDGED.
"""

import json
import os
import socket
import sys


def submit(path, number):
    """Whether it was acknowledged."""
    request = {"job_id": f"load-{number}", "request_id": f"load-{number}"}
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path)
        try:
            client.sendall(json.dumps(request).encode() + b"\n")
            answer = client.makefile().readline()
        except (BrokenPipeError, ConnectionResetError):
            return False
    if not answer:
        return False
    answer = json.loads(answer)
    if "error" in answer:
        assert answer["error"]["code"] == -32004, answer
        return False
    return True


def main():
    path, stop, acknowledged = sys.argv[1:]
    number = again = 0
    with open(acknowledged, "w", encoding="utf-8") as file:
        while not os.path.exists(stop):
            if submit(path, number):
                print(f"load-{number}", file=file, flush=True)
                number += 1
            else:
                again += 1
    print(f"   {number} acknowledged, {again} sent again")


main()
