"""Addresses of processes, grpc://host:port, and whether something answers."""

import re
import socket

_ADDRESS = re.compile(r"grpc://(\[[0-9a-fA-F:]+\]|[^\s/:\[\]]+):(\d{1,5})/?")
_WAIT_S = 10.0


def parse(address: str) -> tuple[str, int]:
    """Returns the host and the port of an address.

    Raises:
        ValueError: it is no such address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise ValueError(
            "Expected an address such as grpc://host:5050. Received: "
            f"{address!r}."
        )
    return match[1], int(match[2])


def check_answers(address: str, *, advice: str) -> None:
    """Refuses an address at which no process listens.

    Args:
        address: the address.
        advice: what to do, for the message.

    Raises:
        ConnectionError: nothing listens there.
    """
    host, port = parse(address)
    try:
        socket.create_connection((host.strip("[]"), port), _WAIT_S).close()
    except OSError as error:
        raise ConnectionError(
            f"Expected a process that listens at {address}. Received: {error}. "
            f"{advice}"
        ) from error


def free_port(port: int) -> int:
    """Returns a port on which nothing listens at the moment.

    gRPC would share a port with another process, and get some of its requests.

    Args:
        port: the port; 0: any.

    Raises:
        OSError: something listens there.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return probe.getsockname()[1]
    except OSError as error:
        raise OSError(
            f"Expected a free port. Received: port={port} ({error}). Choose "
            "another --service_port."
        ) from error


def host_for(address: str | None) -> str:
    """Returns the name by which another machine reaches this one.

    Args:
        address: a process that will use the name, or None if not known; one of
            this machine needs no name.
    """
    if address is not None:
        host = parse(address)[0].strip("[]")
        if host in ("localhost", "::1") or host.startswith("127."):
            return "localhost"
    return socket.gethostname()
