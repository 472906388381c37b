"""Retrieval of written notes, the linear map it is held against, and borrowed notes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from nla_core.errors import NLAError
from precompute.evaluation.measure import _parts
from precompute.evaluation.notes import LEAST, Marked, NoteMap, note_figures
from precompute.evaluation.report import _notes
from precompute.train.borrow import borrow_notes
from precompute.train.examples import Examples
from tests.analysis.embedder import BagOfWords

pytestmark = pytest.mark.unit

WORDS = ("canoe", "soup", "train", "poem", "storm", "loan", "garden", "exam", "violin", "harbour")


def _note(a: int, b: int) -> str:
    return f"Talk of a {WORDS[a]}; {WORDS[b]} named."


def _annotated(n: int, seed: int) -> Examples:
    """Vectors that hold two words each, linearly, and notes that name both."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(len(WORDS), 32, generator=generator)
    pairs = torch.randint(0, len(WORDS), (n, 2), generator=torch.Generator().manual_seed(seed))
    hidden = directions[pairs[:, 0]] + directions[pairs[:, 1]]
    notes = [_note(a, b) for a, b in pairs.tolist()]
    rows = pd.DataFrame(
        {
            "doc_id": [f"d{i}" for i in range(n)],
            "source": "toy",
            "label": [f"{note} Next: a / b. Text: of it" for note in notes],
            "context": ["so much of it"] * n,
        }
    )
    return Examples(rows, hidden)


def _marked(n: int, seed: int) -> tuple[Marked, list[str]]:
    examples = _annotated(n, seed)
    labels = examples.rows["label"].tolist()
    notes = tuple(label.split(" Next:")[0] for label in labels)
    return Marked(examples.hidden, notes, tuple(examples.rows["context"])), labels


def test_the_written_note_itself_is_found_and_a_strange_one_is_not() -> None:
    marked, labels = _marked(40, seed=11)
    own = note_figures(marked, labels, BagOfWords())
    assert own["note_rank_1"] == 1.0
    strange = note_figures(marked, labels[1:] + labels[:1], BagOfWords())
    assert strange["note_rank_1"] <= 0.2
    assert own["notes"]["chance"]["rank_1"] == pytest.approx(1 / 40)
    assert "note_rank_1_linear" not in own


def test_the_note_is_what_counts_not_the_fields_behind_it() -> None:
    marked, labels = _marked(40, seed=11)
    other_fields = [label.replace("Text: of it", "Text: garden exam") for label in labels]
    assert note_figures(marked, other_fields, BagOfWords())["note_rank_1"] == 1.0


def test_the_linear_map_finds_notes_of_vectors_it_has_not_seen() -> None:
    fitted = NoteMap.fit(_annotated(400, seed=1), BagOfWords())
    marked, labels = _marked(40, seed=11)
    figures = note_figures(marked, labels, BagOfWords(), fitted, {"another": ["storm"] * 40})
    assert figures["note_rank_1_linear"] > 0.8
    assert figures["notes"]["lanes"]["best_written"]["rank_1"] > 0.8
    assert figures["notes"]["lanes"]["another"]["rank_1"] < 0.3
    embedded = torch.from_numpy(BagOfWords().embed(list(marked.notes)))
    agreed = fitted.agreement(marked.hidden, embedded)
    assert float(agreed.mean()) > float(fitted.agreement(marked.hidden, embedded.roll(7, 0)).mean())


def test_a_map_needs_notes() -> None:
    examples = _annotated(30, seed=1)
    examples.rows["label"] = "Opening words of a text; kind and topic still open. Text: It"
    with pytest.raises(NLAError, match="No example has a note"):
        NoteMap.fit(examples, BagOfWords())


def test_few_texts_are_refused() -> None:
    class Target:
        tokenizer = None

    with pytest.raises(NLAError, match=f"fewer than {LEAST}"):
        Marked.of(Target(), [])  # type: ignore[arg-type]


def test_plain_text_borrows_the_notes_that_agree_best(tmp_path: Path) -> None:
    annotated, plain = _annotated(400, seed=1), _annotated(60, seed=21)
    truth = [label.split(" Next:")[0] for label in plain.rows["label"]]
    plain.rows["label"] = 'Text, prose, at "of it". Next: a / b. About: x, y. Text: of it'
    annotated.save(tmp_path / "a" / "notes")
    annotated.save(tmp_path / "a" / "val")
    (tmp_path / "a" / "data.json").write_text(json.dumps({"finished": True}))
    plain.save(tmp_path / "f" / "av")
    figures = borrow_notes(
        tmp_path / "a",
        tmp_path / "f",
        tmp_path / "out",
        split="av",
        share=0.5,
        embedder=BagOfWords(),
    )
    assert figures["borrowed"] == 30
    made = Examples.load(tmp_path / "out" / "notes")
    assert len(made.rows) == 430
    borrowed = made.rows[made.rows["labelled_by"] == "borrowed"]
    assert borrowed["label"].str.endswith(". Next: a / b. Text: of it").all()
    of_vector = {
        tuple(v.tolist()): note for v, note in zip(plain.hidden.half(), truth, strict=True)
    }
    hits = 0
    for at, label in borrowed["label"].items():
        true = of_vector[tuple(made.hidden[at].half().tolist())]
        hits += {w for w in WORDS if w in true} == {w for w in WORDS if w in label}
    assert hits >= 20
    with pytest.raises(NLAError, match="--share 0"):
        borrow_notes(
            tmp_path / "a",
            tmp_path / "f",
            tmp_path / "out",
            split="av",
            share=0,
            embedder=BagOfWords(),
        )


def test_the_report_ranks_the_note_beside_chance() -> None:
    marked, labels = _marked(40, seed=11)
    section = _notes(note_figures(marked, labels, BagOfWords()))
    assert "One token of each of 40 texts" in section
    assert "| the explanation's note | 1.000 | 1.000 | 1 |" in section
    assert "| chance | 0.025 | 0.125 | 20 |" in section
    assert _notes({"fve": 0.5}) == ""


def test_parts_are_lanes_only_where_texts_have_notes() -> None:
    _, labels = _marked(4, seed=11)
    lanes = _parts(labels)
    assert lanes["note_alone"] == [label.split(" Next:")[0] for label in labels]
    assert lanes["text_alone"] == ["Text: of it"] * 4
    assert _parts(['Answer, prose, at "of it". Next: a / b. Text: of it'] * 4) == {}
