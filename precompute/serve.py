"""``app``: serve the explorer on this machine, from a checkout or from an installed package."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nla_core.data.manifest import current_version
from nla_core.paths import PROJECT

HELP = (
    "Serve the explorer. It opens the demo unless --data or NLA_DATA names datasets; Ctrl-C ends "
    "it. Fetch the demo model first, or let the first prompt of your own do it."
)
EXAMPLE = "python -m precompute app --port 8600"
FOLDERS = ("NLA_DATA", "NLA_RUNS", "NLA_OWN", "NLA_PAIRS", "NLA_HOME")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", metavar="DIR", help="datasets to show (NLA_DATA)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (this machine)")
    parser.add_argument("--port", type=int, default=8501)


def main(args: argparse.Namespace) -> int:
    """Become the server. Raises NLAError for a folder of --data that holds no dataset."""
    if args.data:
        for folder in args.data:
            current_version(Path(folder))
        os.environ["NLA_DATA"] = os.pathsep.join(args.data)
    # Streamlit reads its settings from the folder it is started in.
    for name in FOLDERS:
        if named := os.environ.get(name):
            parts = [str(Path(part).resolve()) for part in named.split(os.pathsep) if part]
            os.environ[name] = os.pathsep.join(parts)
    os.chdir(PROJECT)
    command = [sys.executable, "-m", "streamlit", "run", "app.py"]
    command += ["--server.address", args.host, "--server.port", str(args.port)]
    os.execv(sys.executable, command)
