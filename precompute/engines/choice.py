"""Which engine, and which device, the flags of ``run`` name.

Knows what flags mean together, and refuses those that mean nothing. Does not run anything. The
decision a reader would question: Ray is imported only where it was asked for, since it is an extra.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nla_core.errors import NLAError
from nla_core.nla.devices import SPLIT
from precompute.engines.base import Engine
from precompute.engines.local import LocalEngine

if TYPE_CHECKING:
    import torch


def device_of(args: argparse.Namespace) -> torch.device:
    """The workers' device: that of this machine, or what is said of a cluster.

    Raises NLAError for a device that is not there, and for flags that belong to the other engine.
    """
    _check_flags(args)
    from nla_core.nla.devices import named
    from nla_core.nla.placement import pick_place

    if args.ray_address is None:
        return pick_place(args.device).first
    if args.device == "auto":
        raise NLAError(
            "--device auto cannot be decided for a Ray cluster",
            why="the machines that will do the work are not this one",
            fix="Say --device cuda or --device cpu",
        )
    return named(args.device)


def engine_of(args: argparse.Namespace, *, gpu: bool) -> Engine:
    """Whose workers compute on what `device_of` said, ``gpu`` or not."""
    if args.engine == "local":
        return LocalEngine(args.rank, args.world_size)
    from precompute.engines.ray import RayEngine

    return RayEngine(args.ray_address, args.workers, gpu)


def _check_flags(args: argparse.Namespace) -> None:
    if args.engine == "local":
        for name in ("ray_address", "workers"):
            if getattr(args, name) is not None:
                raise NLAError(
                    f"--{name.replace('_', '-')} means nothing here",
                    why="it belongs to --engine ray, and this is --engine local",
                    fix="Add --engine ray, or leave it away",
                )
        return
    if args.device.startswith(SPLIT):
        raise NLAError(
            f"--device {args.device} means nothing with --engine ray",
            why="Ray gives each worker one GPU",
            fix="Use --engine local; ranks on several machines share the shards",
        )
    if args.world_size != 1:
        raise NLAError(
            f"--world-size {args.world_size} means nothing here",
            why="with --engine ray one driver has all the workers",
            fix="Use --workers, or --engine local",
        )
