"""Upload of an exported pair to the Hugging Face hub.

Knows the names of the two repositories and how an upload can fail. Knows nothing of how the folders
were made. The decision a reader would question: the recorded test set stays at home; it holds the
user's prompts, and nobody who asked for weights to be published asked for those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from nla_core.errors import NLAError
from nla_core.models.pair import Pair
from nla_core.models.sidecar import Role

KEPT_AT_HOME = "testset/*"


def check_name(name: str) -> str:
    """``USER/NAME`` without the suffix of a half, or NLAError."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.endswith(("-av", "-ar")):
        raise NLAError(
            f"'{name}' is not a name for a pair on the hub",
            why="Expected USER/NAME; the repositories become NAME-av and NAME-ar",
            fix="For example --push alice/smollm2-L20",
        )
    return name


def check_target(pair: Pair) -> None:
    """Refuse to publish a sidecar whose target nobody else could find."""
    if pair.target.startswith("pypi:") or not Path(pair.target).expanduser().exists():
        return
    raise NLAError(
        f"The pair's target is a path on this machine: {pair.target}",
        why="The path would be published in nla_meta.yaml, and no one else could load it",
        fix="Give the model's public name with --target ORG/MODEL; it must be the same weights",
    )


def push(folders: Mapping[Role, Path], name: str, *, private: bool) -> dict[str, str]:
    """Create ``NAME-av`` and ``NAME-ar`` where missing, upload, and return their addresses.

    The token comes from ``HF_TOKEN`` or an earlier login. Raises NLAError; the folders stay.
    """
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise NLAError(
            "No Hugging Face token was found, so nothing was uploaded",
            why="Neither HF_TOKEN nor a login of this user holds one; the local export is kept",
            fix=f"Run `hf auth login`, then {_by_hand(folders, name)}",
        )
    api = HfApi()
    urls: dict[str, str] = {}
    for role, folder in folders.items():
        repository = f"{name}-{role}"
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message=f"Upload the {role.upper()} of {name}",
                ignore_patterns=[KEPT_AT_HOME],
            )
        except Exception as error:  # the hub library raises many kinds; all mean: not uploaded
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NLAError(
                f"Could not upload {folder} to {repository}",
                why=f"{type(error).__name__}: {said}; the local export is kept"
                + (f", and {', '.join(urls)} was uploaded" if urls else ""),
                fix="Check the network, the name and the token's write permission, then "
                + _by_hand(folders, name),
            ) from error
        urls[repository] = str(done.repo_url)
    return urls


def _by_hand(folders: Mapping[Role, Path], name: str) -> str:
    commands = [
        f"`hf upload {name}-{role} {folder} . --exclude '{KEPT_AT_HOME}'`"
        for role, folder in folders.items()
    ]
    return "upload what was written: " + " and ".join(commands)
