"""The contract file: old and new names, and refusals that name field, value and expectation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nla_core.errors import NLAError
from nla_core.models.injection import build_slot
from nla_core.models.sidecar import FILE_NAME, dump_sidecar, load_sidecar, parse_sidecar
from tests.tiny import MARKER, tiny_tokenizer


def av_document() -> dict[str, Any]:
    tokenizer = tiny_tokenizer()
    left, marker, right = (
        tokenizer(text)["input_ids"] for text in ("<concept>", MARKER, "</concept>")
    )
    return {
        "kind": "nla_model",
        "schema_version": 1,
        "role": "av",
        "d_model": 32,
        "extraction_layer_index": 2,
        "extraction": {"injection_scale": 20},
        "tokens": {
            "injection_char": MARKER,
            "injection_token_id": marker[0],
            "injection_left_neighbor_id": left[-1],
            "injection_right_neighbor_id": right[0],
        },
        "prompt_templates": {"av": "say it <concept>{injection_char}</concept>"},
    }


def test_new_names() -> None:
    sidecar = parse_sidecar(av_document(), "x")
    assert (sidecar.role, sidecar.layer, sidecar.injection_scale) == ("av", 2, 20.0)
    assert sidecar.mse_scale == pytest.approx(32**0.5)


def test_names_of_older_releases() -> None:
    document = av_document()
    document["role"] = "actor"
    document["prompt_templates"] = {"actor": document["prompt_templates"]["av"]}
    document["critic"] = {"extraction_layer_index": document.pop("extraction_layer_index")}
    assert replace(parse_sidecar(document, "x"), path="") == replace(
        parse_sidecar(av_document(), "x"), path=""
    )
    critic = {
        "kind": "nla_model",
        "role": "critic",
        "d_model": 32,
        "critic": {"extraction_layer_index": 2},
        "tokens": {"critic_suffix_ids": [1, 2]},
        "prompt_templates": {"critic": "Summary: {explanation}"},
    }
    assert parse_sidecar(critic, "x").ar_suffix_ids == (1, 2)


@pytest.mark.parametrize(
    ("scale", "expected"), [("raw", None), (None, None), ("sqrt_d_model", 32**0.5), (150, 150.0)]
)
def test_injection_scale_forms(scale: object, expected: float | None) -> None:
    document = av_document()
    document["extraction"] = {"injection_scale": scale}
    assert parse_sidecar(document, "x").injection_scale == expected


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        ({"kind": "other"}, "kind", "'other'"),
        ({"role": "judge"}, "role", "'judge'"),
        ({"d_model": "wide"}, "d_model", "'wide'"),
        ({"extraction_layer_index": None}, "extraction_layer_index", "None"),
        ({"extraction": {"injection_scale": -3}}, "extraction.injection_scale", "-3"),
        ({"extraction": {}}, "extraction.injection_scale", "no such key"),
        ({"schema_version": 99}, "schema_version", "99"),
        ({"prompt_templates": {}}, "prompt_templates.av", "None"),
        ({"tokens": {}}, "tokens.injection_token_id", "None"),
        ({"tokens": [1]}, "tokens", "[1]"),
    ],
)
def test_refusals_name_field_and_value(change: dict[str, Any], field: str, found: str) -> None:
    with pytest.raises(NLAError) as caught:
        parse_sidecar(av_document() | change, "meta.yaml")
    assert f"'{field}'" in caught.value.what
    assert found in caught.value.why
    assert "expected" in caught.value.why


def test_dump_round_trips(tmp_path: Path) -> None:
    sidecar = parse_sidecar(av_document(), str(tmp_path / FILE_NAME))
    (tmp_path / FILE_NAME).write_text(dump_sidecar(sidecar), encoding="utf-8")
    assert load_sidecar(tmp_path) == sidecar


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(NLAError, match="No nla_meta"):
        load_sidecar(tmp_path)
    (tmp_path / FILE_NAME).write_text("a: [", encoding="utf-8")
    with pytest.raises(NLAError, match="not readable YAML"):
        load_sidecar(tmp_path)


def test_slot_is_split_at_the_marker() -> None:
    tokenizer = tiny_tokenizer()
    sidecar = parse_sidecar(av_document(), "x")
    slot = build_slot(sidecar, tokenizer)
    text = tokenizer.decode([*slot.prefix_ids, slot.marker_id, *slot.suffix_ids])
    assert f"<concept>{MARKER}</concept>" in text
    assert slot.prefix_ids[-1] == sidecar.left_neighbor_id
    assert slot.suffix_ids[0] == sidecar.right_neighbor_id


@pytest.mark.parametrize("field", ["injection_left_neighbor_id", "injection_right_neighbor_id"])
def test_marker_needs_both_neighbours(field: str) -> None:
    document = yaml.safe_load(yaml.safe_dump(av_document()))
    document["tokens"][field] = 7
    with pytest.raises(NLAError, match="0 markers"):
        build_slot(parse_sidecar(document, "x"), tiny_tokenizer())


def test_marker_must_stand_once() -> None:
    document = av_document()
    template = document["prompt_templates"]["av"]
    document["prompt_templates"] = {"av": template + template}
    with pytest.raises(NLAError, match="2 markers"):
        build_slot(parse_sidecar(document, "x"), tiny_tokenizer())


def test_foreign_tokenizer_is_named() -> None:
    document = av_document()
    document["tokens"]["injection_token_id"] = 9
    with pytest.raises(NLAError) as caught:
        build_slot(parse_sidecar(document, "x"), tiny_tokenizer())
    assert "tokens.injection_token_id" in caught.value.what
    assert "9" in caught.value.why
