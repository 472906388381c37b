"""The sidecar ``nla_meta.yaml``: read, checked against the live tokenizer, written.

The sidecar is the contract of a pair: nothing it says is guessed or typed in elsewhere. Prompt
templates are filled in by replacing their one placeholder, since they may hold other braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from nla_core.errors import NLAError

VECTOR_FIELDS = ("injection_char", "vector", "concept")
"""Names by which AV templates call the vector's place; the published one comes first."""
_BRACES = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}]")


def fill(template: str, values: Mapping[str, str]) -> str:
    """``template`` with its fields replaced; ``{{`` and ``}}`` become single braces.

    Values are put in as they are: braces in them mean nothing. A field that ``values`` does not
    name stays as it stands.
    """

    def put(match: re.Match[str]) -> str:
        found = match[0]
        if match[1] is not None:
            return values.get(match[1], found)
        return found[0]

    return _BRACES.sub(put, template)


def fill_vector(template: str, marker: str) -> str:
    """An AV template with ``marker`` where the vector goes, by whichever name it has there."""
    return fill(template, dict.fromkeys(VECTOR_FIELDS, marker))


def portable(template: str, field: str, aliases: tuple[str, ...] = ()) -> str:
    """The template as ``str.format(**{field: ...})`` needs it, with the same result as ``fill``.

    ``aliases`` are renamed to ``field``; every other brace is doubled.
    """

    def write(match: re.Match[str]) -> str:
        if match[1] in (field, *aliases):
            return "{" + field + "}"
        if match[1] is not None:
            return "{{" + match[1] + "}}"
        return match[0][0] * 2

    return _BRACES.sub(write, template)


FILE_NAME = "nla_meta.yaml"
Role = Literal["av", "ar"]
ALIASES: dict[Role, tuple[str, ...]] = {
    "av": ("av", "actor", "verbalizer"),
    "ar": ("ar", "critic", "reconstructor"),
}
SUPPORTED_SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One checked sidecar. ``injection_scale`` is an L2 norm, or None for raw vectors."""

    role: Role
    d_model: int
    layer: int
    injection_scale: float | None
    mse_scale: float
    injection_char: str | None
    injection_token_id: int | None
    left_neighbor_id: int | None
    right_neighbor_id: int | None
    ar_suffix_ids: tuple[int, ...]
    av_template: str | None
    ar_template: str | None
    av_prefill: str
    base_model: str | None
    base_sha256: str | None
    path: str

    def refuse(self, field: str, found: object, expected: object, fix: str) -> NLAError:
        return NLAError(
            f"{self.path}: field '{field}' disagrees with the model it is used with",
            why=f"The file says {found!r}, expected is {expected!r}",
            fix=fix,
        )


def load_sidecar(folder: Path) -> Sidecar:
    """Read ``folder/nla_meta.yaml``; raises NLAError naming the field, value and expectation."""
    path = Path(folder) / FILE_NAME
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NLAError(
            f"No {FILE_NAME} in {folder}",
            why="Without its sidecar a checkpoint's layer, scale and prompt are unknown",
            fix="Point at a folder of an NLA pair, or copy the sidecar of the release beside it",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NLAError(
            f"{path} is not readable YAML", why=str(error).replace("\n", " "), fix="Repair the file"
        ) from None
    return parse_sidecar(raw, str(path))


def parse_sidecar(raw: object, path: str) -> Sidecar:
    """Check a parsed YAML document against the contract."""
    if not isinstance(raw, Mapping) or raw.get("kind") != "nla_model":
        found = raw.get("kind") if isinstance(raw, Mapping) else type(raw).__name__
        raise _bad(path, "kind", found, "'nla_model'")
    version = raw.get("schema_version", 1)
    if not isinstance(version, int) or version > SUPPORTED_SCHEMA:
        raise _bad(path, "schema_version", version, f"an integer up to {SUPPORTED_SCHEMA}")
    role = next((r for r, names in ALIASES.items() if raw.get("role") in names), None)
    if role is None:
        raise _bad(path, "role", raw.get("role"), "av or ar (older files: actor or critic)")
    extraction = _mapping(raw, "extraction", path)
    tokens = _mapping(raw, "tokens", path)
    templates = _mapping(raw, "prompt_templates", path)
    d_model = _integer(raw.get("d_model"), "d_model", path, low=1)
    layer = raw.get("extraction_layer_index")
    for name in ALIASES["ar"]:
        if layer is None and isinstance(raw.get(name), Mapping):
            layer = raw[name].get("extraction_layer_index")
    suffix = tokens.get("critic_suffix_ids") or ()
    if not isinstance(suffix, (list, tuple)) or not all(isinstance(i, int) for i in suffix):
        raise _bad(path, "tokens.critic_suffix_ids", suffix, "a list of token ids")
    mse_scale = extraction.get("mse_scale")
    sidecar = Sidecar(
        role=role,
        d_model=d_model,
        layer=_integer(layer, "extraction_layer_index", path, low=0),
        injection_scale=_scale(extraction, d_model, path) if role == "av" else None,
        mse_scale=d_model**0.5 if mse_scale is None else float(mse_scale),
        injection_char=tokens.get("injection_char"),
        injection_token_id=tokens.get("injection_token_id"),
        left_neighbor_id=tokens.get("injection_left_neighbor_id"),
        right_neighbor_id=tokens.get("injection_right_neighbor_id"),
        ar_suffix_ids=tuple(suffix),
        av_template=_template(templates, "av"),
        ar_template=_template(templates, "ar"),
        av_prefill=str(raw.get("av_prefill") or ""),
        base_model=raw.get("base_model"),
        base_sha256=raw.get("base_sha256"),
        path=path,
    )
    _check_role_fields(sidecar)
    return sidecar


def dump_sidecar(sidecar: Sidecar) -> str:
    """The YAML text of a sidecar, in the released key names.

    Suffix ids are left out where there are none: a prompt that ends with the explanation itself has
    no fixed end to hold a tokenizer to.
    """
    tokens: dict[str, Any] = {
        "injection_char": sidecar.injection_char,
        "injection_token_id": sidecar.injection_token_id,
        "injection_left_neighbor_id": sidecar.left_neighbor_id,
        "injection_right_neighbor_id": sidecar.right_neighbor_id,
    }
    if sidecar.ar_suffix_ids:
        tokens["critic_suffix_ids"] = list(sidecar.ar_suffix_ids)
    document: dict[str, Any] = {
        "kind": "nla_model",
        "schema_version": 1,
        "role": sidecar.role,
        "d_model": sidecar.d_model,
        "extraction_layer_index": sidecar.layer,
        "extraction": {
            "injection_scale": sidecar.injection_scale,
            "mse_scale": sidecar.mse_scale,
        },
        "tokens": tokens,
        "prompt_templates": {"av": sidecar.av_template, "ar": sidecar.ar_template},
        "av_prefill": sidecar.av_prefill,
        "base_model": sidecar.base_model,
        "base_sha256": sidecar.base_sha256,
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)


def _check_role_fields(sidecar: Sidecar) -> None:
    needed = {
        "av": ("injection_token_id", "left_neighbor_id", "right_neighbor_id", "av_template"),
        "ar": ("ar_template",),
    }[sidecar.role]
    public = {
        "injection_token_id": "tokens.injection_token_id",
        "left_neighbor_id": "tokens.injection_left_neighbor_id",
        "right_neighbor_id": "tokens.injection_right_neighbor_id",
        "av_template": "prompt_templates.av",
        "ar_template": "prompt_templates.ar",
    }
    for field in needed:
        value = getattr(sidecar, field)
        if value is None or (field.endswith("_id") and not isinstance(value, int)):
            kind = "a token id" if field.endswith("_id") else "a prompt template"
            raise _bad(sidecar.path, public[field], value, kind)
    if sidecar.role == "ar" and "{explanation}" not in (sidecar.ar_template or ""):
        raise _bad(
            sidecar.path, "prompt_templates.ar", sidecar.ar_template, "a text with {explanation}"
        )


def _scale(extraction: Mapping[str, Any], d_model: int, path: str) -> float | None:
    field = "extraction.injection_scale"
    if "injection_scale" not in extraction:
        raise _bad(path, field, "no such key", "a positive number, sqrt_d_model, or raw")
    value = extraction["injection_scale"]
    if value is None or value == "raw":
        return None
    if value == "sqrt_d_model":
        return float(d_model) ** 0.5
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise _bad(path, field, value, "a positive number, sqrt_d_model, or raw")
    return float(value)


def _template(templates: Mapping[str, Any], role: Role) -> str | None:
    return next((str(templates[n]) for n in ALIASES[role] if templates.get(n)), None)


def _mapping(raw: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, Mapping):
        raise _bad(path, key, value, "a mapping")
    return value


def _integer(value: object, field: str, path: str, *, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise _bad(path, field, value, f"an integer of at least {low}")
    return value


def _bad(path: str, field: str, found: object, expected: str) -> NLAError:
    return NLAError(
        f"{path}: field '{field}' does not fit the contract",
        why=f"Found {found!r}, expected {expected}",
        fix="Correct the field, or fetch the sidecar of the release again",
    )
