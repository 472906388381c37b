"""The worker of `nla_core.api.worker_app` as a Ray Serve application, where replicas should scale.

Knows Ray Serve's builder, and which settings of a deployment file are ours. Does not know how many
replicas there are: that stands in the file (`deploy/serve.yaml`). The decision a reader would
question: each replica answers one request at a time and is asked by the whole protocol of a single
worker; Serve's router is the only thing between page and models, and the page sees one address.

Start it with ``serve run deploy/serve.yaml``. Ray's usage reports are switched off here.
"""

from __future__ import annotations

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before ray is imported

from typing import TYPE_CHECKING, Any, Final

from ray import serve

from nla_core.errors import NLAError
from nla_core.runs.remote_wire import TOKEN_VARIABLE

if TYPE_CHECKING:
    from starlette.applications import Starlette

NAME: Final = "worker"
SETTINGS: Final = frozenset({"nla", "device", "dtype"})


class Replica:
    """One pair on one device, loaded when the replica starts."""

    def __init__(self, nla: str, device: str = "auto", dtype: str = "auto") -> None:
        from nla_core.api.worker import identity_of
        from nla_core.explain import Explainer

        self.explainer = Explainer.load(nla, device=device, dtype=dtype)
        self.identity = identity_of(self.explainer)

    def __serve_build_asgi_app__(self) -> Starlette:
        from nla_core.api.worker_app import application

        return application(self.explainer, self.identity, os.environ.get(TOKEN_VARIABLE) or None)


def build(arguments: dict[str, Any], **options: Any) -> Any:
    """What ``import_path: nla_core.api.serve_app:build`` and its ``args`` become.

    ``options`` are those of a deployment, where no file gives them.
    Raises NLAError for arguments that are not ours.
    """
    unknown = sorted(arguments.keys() - SETTINGS)
    if unknown or "nla" not in arguments:
        raise NLAError(
            "The Serve application cannot be built",
            why=f"args has {', '.join(unknown)}" if unknown else "args has no nla",
            fix="Give nla, and device and dtype where they are not auto, as in deploy/serve.yaml",
        )
    deployment: Any = serve.deployment(serve.ingress()(Replica))
    return deployment.options(**{"name": NAME, **options}).bind(**arguments)
