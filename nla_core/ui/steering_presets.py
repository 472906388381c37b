"""Presets of the Steer page: what each changes, and what that was measured to do.

Knows how a preset becomes a view and how its effect is told. Measures nothing. The decision a
reader would question: presets that did not beat a random direction are listed below those that did,
with the same numbers.
"""

from __future__ import annotations

from nla_core.data.dataset import Dataset
from nla_core.links import SteerView
from nla_core.steering.presets import Measured, Preset, presets
from nla_core.ui import controls
from nla_core.ui.cards import Card, Group, cards
from nla_core.ui.html import draw, hint
from nla_core.ui.steering_results import points


def view_of(preset: Preset, dataset: str | None) -> SteerView:
    """The whole experiment of a preset as the page holds it."""
    asked = preset.experiment
    edit = asked.edits[0]
    return SteerView(
        dataset=dataset,
        preset=preset.id,
        pair=asked.pair,
        prompt=asked.prompt,
        original=edit.original,
        edited=edit.edited,
        place=asked.place,
        prompt_only=not asked.every,
        alphas=asked.alphas,
        words=", ".join(asked.words),
        new_tokens=asked.new_tokens,
        temperature=asked.temperature,
    ).normal()


def chosen(view: SteerView) -> Preset | None:
    """The preset that the view names and still is."""
    return next((p for p in presets() if p.id == view.preset), None)


def listed(dataset: Dataset, view: SteerView) -> None:
    """All presets as cards, those that work first."""
    found = presets()
    works = [p for p in found if p.measured is not None and p.measured.works]
    works.sort(key=lambda p: p.measured.over_random.difference if p.measured else 0, reverse=True)
    others = [p for p in found if p not in works]
    revision = pair_revision(dataset)
    groups = [
        Group([_card(p, view, revision) for p in rows], title=title)
        for rows, title in (
            (works, f"{len(works)} presets that beat a random direction"),
            (others, f"{len(others)} that were tried and did not"),
        )
        if rows
    ]
    if groups:
        cards(
            groups,
            label="Presets",
            key="steer_presets",
            layout="grid",
            on_choice=controls.follow(SteerView),
        )
        hint(
            "Each was chosen on seeds 0 to 9 and measured on others. Shares are of texts that hold "
            "one of the preset’s words."
        )


def effect(preset: Preset, revision: str) -> None:
    """What the preset on the screen was measured to do."""
    draw(
        '<div class="nla-preset"><p><b>{name}.</b> {about}</p><p>{told}</p></div>',
        name=preset.name,
        about=preset.about,
        told=told(preset.measured, preset.alpha),
    )
    if preset.stale(revision) and preset.measured is not None:
        draw(
            '<div class="nla-notice" role="status"><p>This was measured with revision {old} of the '
            "pair. The pair here is {new}, so the numbers may be others; run it to see.</p></div>",
            old=preset.measured.revision,
            new=revision,
        )


def told(measured: Measured | None, alpha: float) -> str:
    """Rates of the three arms and the difference, in one sentence."""
    if measured is None:
        return "Not measured yet as it stands."
    over = measured.over_random
    return (
        f"At α = {alpha:g}: steered {measured.steered.share:.0%}, random direction "
        f"{measured.random.share:.0%}, baseline {measured.baseline.share:.0%} of "
        f"{measured.steered.n} texts each. Steered minus random: {points(over.difference)} points, "
        f"95 % interval {points(over.low)} to {points(over.high)}."
    )


def pair_revision(dataset: Dataset) -> str:
    """Of the pair that this dataset was made with."""
    return str(dataset.manifest.pair.get("revision", ""))


def _card(preset: Preset, view: SteerView, revision: str) -> Card:
    measured = preset.measured
    facts = "not measured"
    if measured is not None:
        facts = (
            f"{measured.steered.share:.0%} steered · {measured.random.share:.0%} random · "
            f"{measured.baseline.share:.0%} baseline"
        )
    if preset.stale(revision):
        facts += " · of another revision of the pair"
    return Card(
        id=preset.id,
        query=view_of(preset, view.dataset).query,
        title=preset.name,
        facts=facts,
        text=f"{preset.experiment.prompt}\u00a0…",
    )
