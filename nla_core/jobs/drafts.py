"""What a person is about to ask: a conversation with its branches, nothing lost by an edit.

Knows turns, branches, and which of them may still be changed in place. Knows no page and no
queue. The decision a reader would question: a branch that was run, or that came from somewhere, is
never changed. An edit of it begins a branch of its own, which is the counterfactual, and the old
one stays one click away; a branch that was only typed is changed in place, with an undo. A draft
that another takes the place of is kept behind it, since a click should not cost an hour of typing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nla_core.jobs.request import RunPrompt
from nla_core.prompts import Message
from nla_core.schema import Role

MOST_BRANCHES = 30
MOST_UNDO = 50
MOST_REPLACED = 5


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    content: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """One version of the conversation. ``parent`` is the branch it was edited from, ``run_id`` the
    run that was made of it; ``origin`` says where it came from, empty where it was typed here."""

    turns: tuple[Turn, ...]
    name: str = ""
    origin: str = ""
    parent: int | None = None
    run_id: str | None = None

    @property
    def kept(self) -> bool:
        """Whether an edit must leave it as it is."""
        return bool(self.origin or self.run_id)

    def prompt(self) -> RunPrompt:
        """As it is asked, empty turns left out. Raises NLAError for what is no conversation."""
        said = tuple(
            {"role": str(turn.role), "content": turn.content}
            for turn in self.turns
            if turn.content.strip()
        )
        return RunPrompt(messages=said)


EMPTY = Branch((Turn(Role.USER),))


@dataclass(frozen=True, slots=True)
class Draft:
    """All branches, and which one is looked at. Every change is a new draft."""

    branches: tuple[Branch, ...] = (EMPTY,)
    at: int = 0
    before: tuple[Branch, ...] = ()  # earlier states of the branch that is typed in
    version: int = 0  # changes with everything that was not typed: fields are drawn anew
    replaced: Draft | None = None  # what stood in the editor before this one was put there

    @classmethod
    def of(cls, messages: Sequence[Message], origin: str) -> Draft:
        """A conversation from somewhere else, as a branch that edits leave alone."""
        turns = tuple(Turn(Role(m["role"]), m["content"]) for m in messages)
        return cls((Branch(turns, name="as it was", origin=origin),))

    @property
    def branch(self) -> Branch:
        return self.branches[self.at]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with it."""
        return len(self.branches) == 1 and not any(t.content.strip() for t in self.branch.turns)

    def instead_of(self, earlier: Draft) -> Draft:
        """This draft with a way back to the one it replaces, all of its branches included."""
        back = earlier.replaced if earlier.is_empty else earlier
        return replace(self, replaced=_no_deeper(back, MOST_REPLACED), version=earlier.version + 1)

    def brought_back(self) -> Draft:
        """The draft that this one replaced, as it was left."""
        if self.replaced is None:
            return self
        return replace(self.replaced, version=self.version + 1)

    def look_at(self, at: int) -> Draft:
        return replace(self, at=at, before=(), version=self.version + 1)

    def typed(self, turn: int, content: str) -> Draft:
        """Turn ``turn`` says something else."""
        if turn >= len(self.branch.turns) or self.branch.turns[turn].content == content:
            return self
        turns = list(self.branch.turns)
        turns[turn] = replace(turns[turn], content=content)
        return self._changed(tuple(turns), f"{turns[turn].role} turn {turn + 1} edited")

    def added(self, role: Role) -> Draft:
        """One more turn: a system prompt in front, others at the end."""
        turns = self.branch.turns
        new = (Turn(role), *turns) if role is Role.SYSTEM else (*turns, Turn(role))
        return self._changed(new, f"{role} turn added").redrawn()

    def removed(self, turn: int) -> Draft:
        """Without a turn and, so that speakers still alternate, without those after it.

        A system prompt goes alone.
        """
        turns = self.branch.turns
        first = turns[turn].role is Role.SYSTEM
        left = turns[1:] if first else turns[:turn]
        name = "without system prompt" if first else f"cut before turn {turn + 1}"
        return self._changed(left or (Turn(Role.USER),), name).redrawn()

    def undone(self) -> Draft:
        """As before the last change of this branch."""
        if not self.before:
            return self
        branches = (*self.branches[: self.at], self.before[-1], *self.branches[self.at + 1 :])
        return replace(self, branches=branches, before=self.before[:-1]).redrawn()

    def was_run(self, run_id: str) -> Draft:
        """The branch that is looked at has a run; from now on edits leave it alone."""
        named = replace(self.branch, run_id=run_id, name=self.branch.name or "first version")
        branches = (*self.branches[: self.at], named, *self.branches[self.at + 1 :])
        return replace(self, branches=branches, before=())

    def redrawn(self) -> Draft:
        return replace(self, version=self.version + 1)

    @property
    def next_role(self) -> Role:
        """Who speaks after the last turn."""
        return Role.ASSISTANT if self.branch.turns[-1].role is Role.USER else Role.USER

    def _changed(self, turns: tuple[Turn, ...], what: str) -> Draft:
        if not self.branch.kept:
            branch = replace(self.branch, turns=turns)
            branches = (*self.branches[: self.at], branch, *self.branches[self.at + 1 :])
            before = (*self.before, self.branch)[-MOST_UNDO:]
            return replace(self, branches=branches, before=before)
        branch = Branch(turns, name=what, parent=self.at)
        branches = (*self.branches, branch)
        if len(branches) > MOST_BRANCHES:  # the oldest that is neither the first nor the parent
            drop = next(i for i in range(1, len(branches)) if i != self.at)
            branches = (*branches[:drop], *branches[drop + 1 :])
            moved = {self.at: self.at - (self.at > drop)}
            branches = (*branches[:-1], replace(branch, parent=moved[self.at]))
        return replace(
            self, branches=branches, at=len(branches) - 1, before=(), version=self.version + 1
        )


def _no_deeper(draft: Draft | None, most: int) -> Draft | None:
    """``draft`` with at most ``most`` drafts on the way back, itself included."""
    if draft is None or most == 0:
        return None
    return replace(draft, replaced=_no_deeper(draft.replaced, most - 1))
