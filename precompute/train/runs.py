"""``train ar`` and ``train av``: one role's supervised run, from prepared data to adapters.

Knows how a role's model is put together for training and which files a finished run holds. Knows
nothing of the loop itself. The decision a reader would question: the float32 masters stay in
the checkpoint; what is assembled into a pair is written in float16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from nla_core.errors import NLAError
from nla_core.models.checkpoints import load_causal_lm, load_tokenizer, resolve
from nla_core.models.devices import pick_device, pick_dtype
from nla_core.models.families import parts_of, truncate
from nla_core.models.injection import build_slot
from nla_core.models.reconstructor import HEAD_FILE, identity_head, load_head
from nla_core.models.sidecar import FILE_NAME, dump_sidecar
from precompute.train.contract import DEFAULT_MARKER, new_contract
from precompute.train.examples import Examples
from precompute.train.record import require_data
from precompute.train.sft import SftSettings, add_lora, train
from precompute.train.tasks import ReconstructorTask, VerbalizerTask

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def train_role(
    role: str,
    *,
    base_spec: str,
    layer: int,
    data: Path,
    out: Path,
    settings: SftSettings,
    injection_scale: float,
    marker: str = DEFAULT_MARKER,
    device: str = "auto",
    dtype: str = "auto",
    minutes: float = float("inf"),
    split: str | None = None,
    init_from: Path | None = None,
) -> None:
    """Train ``role`` ("av" or "ar") on ``data/<split or role>`` and validate on ``data/val``.

    ``init_from`` is a folder with an adapter of the same rank (and for the AR its head) to start
    from. ``out/last`` then holds a PEFT adapter, the sidecar, and for the AR the head.
    Raises NLAError where the adapter does not fit.
    """
    base = resolve(base_spec)
    require_data(data, base, layer)
    tokenizer = load_tokenizer(base.folder)
    where = pick_device(device)
    model = load_causal_lm(base.folder, dtype=pick_dtype(where, dtype), device=where)
    sidecars = new_contract(
        tokenizer,
        base,
        d_model=parts_of(model).d_model,
        layer=layer,
        injection_scale=injection_scale,
        marker=marker,
    )
    sidecar = sidecars[0] if role == "av" else sidecars[1]
    head = None
    if role == "ar":
        truncate(model, layer + 1)
        head = identity_head(sidecar.d_model).to(where)
    if where.type == "cpu":
        # The fused kernel's backward pass is a quarter of a step there; plain products are not.
        model.set_attn_implementation("eager")
    model = add_lora(model, settings)
    if init_from is not None:
        _start_from(init_from, model)
        if head is not None:
            head = load_head(init_from / HEAD_FILE, sidecar.d_model).to(where)
    if head is None:
        task: Any = VerbalizerTask(
            model, tokenizer, build_slot(sidecar, tokenizer), injection_scale
        )
    else:
        task = ReconstructorTask(model, head, tokenizer, sidecar.ar_template or "")

    def save_weights(folder: Path) -> None:
        model.peft_config["default"].base_model_name_or_path = base.spec
        model.peft_config["default"].save_pretrained(folder)
        save_file(
            {k: v.contiguous() for k, v in get_peft_model_state_dict(model).items()},
            folder / ADAPTER_FILE,
        )
        if head is not None:
            save_file({"weight": head.weight.detach().contiguous()}, folder / HEAD_FILE)
        (folder / FILE_NAME).write_text(dump_sidecar(sidecar), encoding="utf-8")

    train(
        task,
        Examples.load(data / (split or role)),
        Examples.load(data / "val"),
        settings,
        out,
        save_weights=save_weights,
        stop_after_s=minutes * 60,
    )


def _start_from(folder: Path, model: Any) -> None:
    """Copy an adapter's weights into ``model``'s fresh one of the same shape."""
    path = folder / ADAPTER_FILE
    if not path.is_file():
        raise NLAError(
            f"No adapter in {folder}",
            why=f"{path} does not exist",
            fix="Give with --init-from the `last` folder of a run, or the av/ or ar/ of a pair",
        )
    weights, own = load_file(path), get_peft_model_state_dict(model)
    for name, tensor in own.items():
        if name not in weights or weights[name].shape != tensor.shape:
            found = list(weights[name].shape) if name in weights else "nothing"
            raise NLAError(
                f"The adapter in {folder} does not fit",
                why=f"{name} is {found}, expected {list(tensor.shape)}",
                fix="Use --rank and --layer of the run that made it",
            )
    set_peft_model_state_dict(model, {n: weights[n].to(t.dtype) for n, t in own.items()})
