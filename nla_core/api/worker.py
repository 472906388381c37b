"""``python -m nla_core.api.worker``: one pair on one device, for queues on other machines.

Knows flags, the address, and when a token is demanded. Does not know what is answered there. The
decision a reader would question: the port is taken first and listened on last; a page that asks too
early is refused at once and tries again, and a port that is in use is told before the models load.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from nla_core.api.worker_app import application
from nla_core.errors import EXIT_BAD_INPUT, EXIT_OK, NLAError
from nla_core.runs.estimate import tokens_per_second
from nla_core.runs.remote_wire import PROTOCOL, TOKEN_VARIABLE, Identity

if TYPE_CHECKING:
    from nla_core.explain import Explainer

LOG = logging.getLogger(__name__)
PORT = 8600
SHORTEST_TOKEN = 16
GRACE_SECONDS = 5


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nla_core.api.worker",
        description="Hold one NLA pair on one device and work for the queues of pages elsewhere.",
    )
    parser.add_argument(
        "--nla", type=Path, required=True, metavar="DIR", help="the NLA pair (av/ and ar/)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine alone)"
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"default: {PORT}; 0 takes one that is free"
    )
    parser.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE) or None,
        help=f"what callers must know; better given in {TOKEN_VARIABLE}, which `ps` does not show",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Load, then serve until a signal. 2 where it cannot begin."""
    args = build_parser().parse_args(argv)
    try:
        check_token(args.host, args.token)
        with bound(args.host, args.port) as sock:
            explainer = _load(args.nla, args.device, args.dtype)
            who = identity_of(explainer)
            app = application(explainer, who, args.token)
            host = f"[{args.host}]" if ":" in args.host else args.host
            port = sock.getsockname()[1]
            sock.listen()
            _say(f"Worker for {who.pair_id}@{who.revision} on http://{host}:{port} ({who.device})")
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
            uvicorn.Server(config).run(sockets=[sock])
    except NLAError as error:
        _say(f"Error: {error}")
        return EXIT_BAD_INPUT
    return EXIT_OK


def check_token(host: str, token: str | None) -> None:
    """Raises NLAError where other machines can reach the worker and no token keeps them out."""
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise NLAError(
            "The worker's token is too short",
            why=f"it has {len(token)} characters and {SHORTEST_TOKEN} is the least",
            fix=f"Make one: export {TOKEN_VARIABLE}=$(openssl rand -hex 16)",
        )
    if token is None and not _is_loopback(host):
        raise NLAError(
            f"The worker does not listen on {host} without a token",
            why="other machines can reach that address, and anyone there could use the models",
            fix=f"Set {TOKEN_VARIABLE} here and where the page runs, or leave --host away",
        )


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds the address and does not listen yet. Raises NLAError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        raise NLAError(
            f"The worker cannot have the address {host}:{port}",
            why=str(error),
            fix="Choose another one with --host and --port",
        ) from None
    return made


def identity_of(explainer: Explainer) -> Identity:
    """What a worker says of itself; warms the models to measure the pace."""
    from nla_core.runs.models import megabytes_of

    try:
        pace = tokens_per_second(explainer)
    except Exception:  # a job will meet it, too, and tell its caller
        LOG.exception("Warming up failed")
        pace = 0.0
    pair, parts = explainer.pair, explainer.loaded.target.parts
    return Identity(
        protocol=PROTOCOL,
        pair_id=pair.pair_id,
        revision=pair.revision,
        d_model=pair.d_model,
        device=str(parts.device),
        dtype=str(parts.product_dtype).removeprefix("torch."),
        megabytes=megabytes_of(explainer),
        tokens_per_s=pace,
    )


def _load(folder: Path, device: str, dtype: str) -> Explainer:
    from nla_core.explain import Explainer

    return Explainer.load(folder, device=device, dtype=dtype, progress=_say)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
