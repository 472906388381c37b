"""Prompts out of an uploaded chat file or evaluation log.

Knows that an Inspect log is a zip that can lie about its size. Does not know what stands in it
(`nla_core.conversations`). The decision a reader would question: the bytes go through a temporary
file, because Inspect reads paths.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final

from nla_core.conversations import conversations, normalised
from nla_core.errors import NLAError
from nla_core.prompts import messages_of
from nla_core.runs.request import RunPrompt
from nla_core.runs.settings import Limits

UNPACKED: Final = 20
"""How many times the limit of an upload a log may have when it is unpacked."""


def log_prompts(name: str, data: bytes, limits: Limits) -> Iterator[tuple[str, Any]]:
    """Where each conversation stands, and what makes a prompt of it (which raises ValueError).

    Raises NLAError for a file that is no log, or would unpack to too much.
    """
    if data.startswith(b"PK\x03\x04"):
        _check_zip(name, data, limits)
    with tempfile.TemporaryDirectory(prefix="nla-upload-") as folder:
        path = Path(folder) / f"upload{PurePath(name).suffix}"  # a name can be too long for a disk
        path.write_bytes(data)
        try:
            for where, _, title, raw in conversations(path):
                yield (
                    where.replace(str(path), name),
                    lambda title=title, raw=raw: _prompt(title, raw),
                )
        except NLAError as error:
            what, why = (said.replace(str(path), name) for said in (error.what, error.why))
            raise NLAError(what, why=why, fix=error.fix) from None


def _prompt(title: str, raw: Any) -> RunPrompt:
    messages = messages_of([dict(m) for m in normalised(raw)], may_answer=True)
    return RunPrompt(messages=messages, title=title)


def _check_zip(name: str, data: bytes, limits: Limits) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError) as error:
        raise NLAError(
            f"{name} is damaged", why=str(error), fix="Copy it again from where it was written"
        ) from None
    most = UNPACKED * limits.upload_bytes
    if size > most:
        raise NLAError(
            f"{name} is too large",
            why=f"unpacked it has {size:,} bytes, and this server takes up to {most:,}",
            fix="Split it, or read it with `python -m precompute transcripts`",
        )
