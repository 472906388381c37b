"""A second reconstructor, not trained together with the pair's AV, as a judge of its texts.

Knows where such an AR lies and what it must share with the pair. Knows nothing of figures. The
decision a reader would question: it may be one whose gold score is lower; the figure to look at is
whether texts lose more under it than gold labels do.
"""

from __future__ import annotations

from pathlib import Path

from nla_core.models.checkpoints import resolve
from nla_core.models.pair import LoadedPair, load_reconstructor
from nla_core.models.reconstructor import Reconstructor
from nla_core.models.sidecar import load_sidecar


def load_second_ar(folder: Path, loaded: LoadedPair) -> Reconstructor:
    """The AR of ``folder`` (or of its ``ar/``), on the pair's target, device and number format.

    Raises NLAError where it is not an AR, or reads another layer or width.
    """
    folder = folder / "ar" if (folder / "ar").is_dir() else folder
    sidecar = load_sidecar(folder)
    for field, expected in (
        ("role", "ar"),
        ("layer", loaded.pair.layer),
        ("d_model", loaded.pair.d_model),
    ):
        if getattr(sidecar, field) != expected:
            raise sidecar.refuse(
                field,
                getattr(sidecar, field),
                expected,
                "Give with --second-ar an AR that was trained for the same target and layer",
            )
    parts = loaded.verbalizer.parts
    return load_reconstructor(
        folder,
        sidecar,
        resolve(loaded.pair.target).folder,
        loaded.tokenizer,
        dtype=parts.product_dtype,
        device=parts.device,
    )
