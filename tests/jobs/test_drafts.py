"""A conversation with its branches: nothing that was run or came from somewhere is changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nla_core.errors import NLAError
from nla_core.jobs.drafts import MOST_BRANCHES, MOST_REPLACED, Branch, Draft, Turn
from nla_core.schema import Role

SAID = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]


def test_what_is_typed_changes_in_place_and_can_be_undone() -> None:
    draft = Draft().typed(0, "a").typed(0, "ab").added(Role.ASSISTANT)
    assert len(draft.branches) == 1
    assert [turn.content for turn in draft.branch.turns] == ["ab", ""]
    draft = draft.undone().undone()
    assert [turn.content for turn in draft.branch.turns] == ["a"]
    assert draft.undone().undone().branch.turns[0].content == ""


def test_an_edit_of_what_came_from_elsewhere_makes_a_branch() -> None:
    draft = Draft.of(SAID, "a corpus").typed(1, "No.")
    assert [b.turns[1].content for b in draft.branches] == ["Yes.", "No."]
    assert draft.at == 1
    assert draft.branch.parent == 0
    assert "assistant turn 2" in draft.branch.name
    again = draft.typed(1, "Never.")
    assert len(again.branches) == 2, "the branch that is typed in is changed in place"


def test_a_branch_that_was_run_is_kept() -> None:
    draft = Draft().typed(0, "Why?").was_run("run-1").typed(0, "Why not?")
    assert [b.turns[0].content for b in draft.branches] == ["Why?", "Why not?"]
    assert [b.run_id for b in draft.branches] == ["run-1", None]
    assert draft.look_at(0).branch.turns[0].content == "Why?"


def test_typing_the_same_is_no_edit() -> None:
    draft = Draft.of(SAID, "a corpus")
    assert draft.typed(1, "Yes.") is draft
    assert draft.typed(7, "beyond") is draft


def test_a_turn_goes_with_those_after_it_and_a_system_prompt_alone() -> None:
    draft = Draft.of([{"role": "system", "content": "Be brief."}, *SAID], "a corpus")
    assert [t.role for t in draft.removed(0).branch.turns] == [Role.USER, Role.ASSISTANT]
    assert [t.role for t in draft.removed(2).branch.turns] == [Role.SYSTEM, Role.USER]
    assert Draft.of(SAID, "x").removed(0).branch.turns == (Turn(Role.USER),)


def test_a_prompt_leaves_out_what_is_empty() -> None:
    branch = Branch((Turn(Role.SYSTEM), Turn(Role.USER, "Hi"), Turn(Role.ASSISTANT, " ")))
    assert branch.prompt().messages == ({"role": "user", "content": "Hi"},)
    with pytest.raises(NLAError, match="cannot be used"):
        Branch((Turn(Role.ASSISTANT, "Hi"),)).prompt()


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=3)), max_size=80))
def test_branches_stay_few_and_their_parents_exist(edits: list[tuple[int, str]]) -> None:
    draft = Draft.of(SAID, "a corpus")
    for number, (turn, text) in enumerate(edits):
        draft = draft.typed(turn, text).was_run(f"run-{number}")
        assert len(draft.branches) <= MOST_BRANCHES
        assert 0 <= draft.at < len(draft.branches)
        assert draft.branches[0].turns[0].content == "Hello?", "the first one is kept"
        assert draft.branch.parent is None or draft.branch.parent < len(draft.branches)


def test_a_draft_that_was_replaced_comes_back_with_its_branches() -> None:
    mine = Draft.of(SAID, "a corpus").typed(1, "No.").typed(0, "Is it?").look_at(1)
    other = Draft.of(SAID, "another").instead_of(mine)
    assert other.replaced == mine
    assert other.version > mine.version, "fields are drawn anew"
    edited = other.typed(0, "Changed").was_run("run-1")
    back = edited.brought_back()
    assert (back.branches, back.at, back.before) == (mine.branches, mine.at, mine.before)
    assert back.version > edited.version
    assert Draft().brought_back() == Draft()


def test_an_empty_draft_is_not_kept_but_what_stood_before_it_is() -> None:
    mine = Draft().typed(0, "an hour of typing")
    afresh = Draft().instead_of(mine)
    assert afresh.replaced == mine
    assert Draft.of(SAID, "a corpus").instead_of(afresh).replaced == mine
    assert Draft().instead_of(Draft()).replaced is None


def test_the_way_back_has_an_end() -> None:
    now = Draft().typed(0, "0")
    for n in range(1, 3 * MOST_REPLACED):
        now = Draft().typed(0, str(n)).instead_of(now)
    steps = []
    while now.replaced is not None:
        now = now.brought_back()
        steps.append(int(now.branch.turns[0].content))
    assert steps == list(range(3 * MOST_REPLACED - 2, 2 * MOST_REPLACED - 2, -1))
