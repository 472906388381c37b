// The token strip: draws chips once, then only toggles classes.
//
// Knows pointer, keyboard and touch behaviour: what is locked, what range is marked, where the hits
// are. Does not know what a reading means: it gets numbers and texts and reports positions. What it
// is made of is in token_strip_draw.js, which stands in front of this.

const SETTLE_MS = 160; // how long the keyboard rests before the panel follows
const SETTLED_MS = 250; // how long a page that was just painted is left alone
const LOST_MS = 15000; // after so long without an answer, the question was lost

const strips = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".strip");
  if (!root || !data) return;
  let strip = strips.get(root);
  if (!strip) {
    strip = new Strip(root);
    strips.set(root, strip);
  }
  strip.send = (position, sent) => setTriggerValue("lock", { position, sent });
  strip.sendRange = (range) => setTriggerValue("range", { range });
  strip.sendPainted = () => setTriggerValue("painted", true);
  if (data !== strip.bytes) {
    strip.bytes = data;
    strip.drawing = JSON.parse(new TextDecoder().decode(data));
  }
  const state = window.nlaStripState?.get(strip.drawing.id);
  if (state) strip.show(state);
}

class Strip {
  constructor(root) {
    this.root = root;
    this.body = root.querySelector(".turns");
    this.legend = root.querySelector(".legend");
    this.card = root.querySelector(".card");
    this.map = new Overview(root.querySelector(".map"), (i) => this.reveal(i, true));
    this.id = null;
    this.chips = [];
    this.nodes = [];
    this.locked = null; // index of a chip, as are cursor, anchor and both ends of the range
    this.cursor = null;
    this.range = null;
    this.body.addEventListener("pointerover", (e) => this.over(e));
    this.body.addEventListener("pointerleave", () => {
      this.hideCard();
      window.dispatchEvent(new CustomEvent("nla:token", { detail: null }));
    });
    this.body.addEventListener("pointerdown", (e) => this.down(e));
    this.body.addEventListener("click", (e) => this.click(e));
    this.body.addEventListener("keydown", (e) => this.key(e));
    this.body.addEventListener("focusin", (e) => this.focused(e));
    this.body.addEventListener("focusout", () => this.hideCard());
    const anywhere = (e) => {
      if (root.isConnected) this.keyAnywhere(e);
      else document.removeEventListener("keydown", anywhere);
    };
    document.addEventListener("keydown", anywhere);
    document.addEventListener("pointerup", () => this.up());
    const evidence = (event) => {
      if (root.isConnected) this.showEvidence(event.detail);
      else window.removeEventListener("nla:evidence", evidence);
    };
    window.addEventListener("nla:evidence", evidence);
    const state = (event) => {
      if (!root.isConnected) window.removeEventListener("nla:strip-state", state);
      else if (event.detail.strip === this.drawing?.id) this.show(event.detail);
    };
    window.addEventListener("nla:strip-state", state);
  }

  // Shows what is drawn in the state that the server says, unless the reader is further on.
  show(data) {
    const fresh = this.drawing.id !== this.id;
    if (fresh) this.build(this.drawing);
    if (data.late) this.merge(data.late);
    if (data.tell && !this.told) this.tellPainted();
    const painted = fresh || data.colour.id !== this.colourId || this.markup !== data.markup;
    this.root.classList.toggle("hide-markup", !data.markup);
    this.markup = data.markup;
    if (painted) this.paint(data);
    const marking = this.anchor !== undefined || this.dragged;
    if (fresh || !marking) this.setRange(data.range && data.range.map((p) => this.indexAt(p)));
    const wanted = data.locked === null ? null : (this.at.get(data.locked) ?? null);
    if (!fresh && this.timer) return; // the reader is already further on
    // What answers an earlier question would take the reader back, however late it comes.
    if (this.sent !== undefined && data.heard !== this.sent && Date.now() < this.sent + LOST_MS) return;
    this.sent = undefined;
    const moved = wanted !== this.locked;
    this.lock(wanted);
    if (fresh && data.reveal) this.reveal(wanted ?? this.range?.[0], true);
    else if (wanted !== null && moved && !fresh) this.reveal(wanted, false);
    if (moved && wanted !== null && this.hasFocus()) this.focus(wanted);
  }

  // After two frames it is on the screen. A breath more, since what is asked for then keeps the
  // browser busy for a second: first the page may settle and answer to the pointer.
  tellPainted() {
    this.told = true;
    const tell = () => setTimeout(() => this.sendPainted(), SETTLED_MS);
    requestAnimationFrame(() => requestAnimationFrame(tell));
  }

  build(data) {
    clearTimeout(this.timer);
    clearTimeout(this.rangeTimer);
    this.timer = this.anchor = undefined;
    this.id = data.id;
    this.flagNames = data.flags;
    this.chips = data.chips.map((chip) => ({ ...chip }));
    this.locked = this.cursor = this.range = null;
    this.sent = undefined;
    this.at = new Map();
    this.chips.forEach((chip, i) => chip.positions.forEach((p) => this.at.set(p, i)));
    this.hideCard();
    const [turns, nodes] = drawTurns(this.chips, (chip) => this.label(chip));
    this.nodes = nodes;
    this.root.classList.toggle("long", nodes.length >= MAP_FROM);
    this.body.replaceChildren(turns);
    if (nodes.length) this.rove(Math.max(this.chips.findIndex((chip) => !chip.markup), 0));
  }

  // Readings that arrive after the strip was drawn: [position, fve or null, text, flags, failure,
  // from where on the text is detail].
  merge(late) {
    for (const [position, fve, explanation, flags, failure, quiet] of late) {
      const i = this.at.get(position);
      const chip = this.chips[i];
      if (!chip || (chip.fve === fve && chip.explanation === explanation && chip.failure === failure)) continue;
      Object.assign(chip, { fve, explanation, flags, failure, quiet });
      this.nodes[i].setAttribute("aria-label", this.label(chip));
      this.nodes[i].classList.toggle("told", fve === null && explanation !== "");
      this.nodes[i].classList.toggle("failure", Boolean(failure));
    }
  }

  label(chip) {
    const parts = [spoken(chip.text)];
    if (chip.fve !== null) parts.push(`fidelity ${chip.fve.toFixed(2)}`);
    else parts.push(chip.explanation ? "score follows" : "no reading");
    return [...parts, ...chip.flags.map((f) => this.flagNames[f] ?? f)].join(", ");
  }

  // Colours and bars of a measure, and the tokens that hold the phrase.
  paint(data) {
    this.colourId = data.colour.id;
    this.scale = new Scale(data.colour, this.drawing.scale.steps, this.drawing.scale.bar);
    this.hits = data.colour.hits.map((p) => this.at.get(p)).filter((i) => i !== undefined);
    const hits = new Set(this.hits);
    this.nodes.forEach((node, i) => {
      const value = data.colour.values[i];
      node.className = node.className.replace(/ ?\b(f\d|unread|hit)\b/g, "");
      if (value === null) {
        node.classList.add("unread");
        node.style.removeProperty("--bar");
      } else {
        node.classList.add("f" + this.scale.step(value));
        node.style.setProperty("--bar", this.scale.height(value) + "px");
      }
      if (hits.has(i)) node.classList.add("hit");
    });
    this.legend.replaceChildren(...this.scale.legend(hits.size));
    this.map.draw(this.chips, this.scale, this.visible(), hits);
    this.map.mark(this.locked);
  }

  visible() {
    const all = this.nodes.map((_, i) => i);
    return this.markup ? all : all.filter((i) => !this.chips[i].markup || i === this.locked);
  }

  // ---- state -------------------------------------------------------------------------------

  lock(i) {
    if (this.locked !== null) {
      this.nodes[this.locked].classList.remove("locked");
      this.nodes[this.locked].setAttribute("aria-selected", "false");
    }
    this.locked = i;
    this.root.classList.toggle("has-lock", i !== null);
    if (i !== null) {
      this.nodes[i].classList.add("locked");
      this.nodes[i].setAttribute("aria-selected", "true");
      this.rove(i);
      this.hideCard();
    }
    this.map.mark(i);
  }

  indexAt(position) {
    return this.at.get(position) ?? (position < 0 ? 0 : this.nodes.length - 1);
  }

  setRange(range) {
    for (let i = this.range?.[0] ?? 0; i <= (this.range?.[1] ?? -1); i++) {
      this.nodes[i].classList.remove("ranged");
    }
    this.range = range ? [Math.min(...range), Math.max(...range)] : null;
    for (let i = this.range?.[0] ?? 0; i <= (this.range?.[1] ?? -1); i++) {
      this.nodes[i].classList.add("ranged");
    }
  }

  commitRange(range) {
    this.setRange(range);
    if (!this.range) return this.sendRange(null);
    const [first, last] = this.range.map((i) => this.chips[i]);
    this.sendRange([first.positions[0], last.positions[last.positions.length - 1]]);
  }

  commit(i) {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.lock(i);
    this.sent = Math.max(Date.now(), (this.sent ?? 0) + 1);
    this.send(i === null ? null : this.chips[i].position, this.sent);
  }

  rove(i) {
    if (this.cursor !== null) this.nodes[this.cursor].tabIndex = -1;
    this.cursor = i;
    this.nodes[i].tabIndex = 0;
    if (this.chips[i].explanation) {
      this.nodes[i].setAttribute("aria-description", this.chips[i].explanation);
    }
  }

  hasFocus() {
    return this.body.contains(this.root.getRootNode().activeElement);
  }

  focus(i) {
    this.rove(i);
    this.nodes[i].focus({ preventScroll: true });
    this.reveal(i, false);
  }

  reveal(i, centre) {
    if (i === undefined || i === null) return;
    requestAnimationFrame(() => {
      const node = this.nodes[i];
      if (!node?.isConnected) return;
      const box = node.getBoundingClientRect();
      if (centre && box.top > 80 && box.bottom < window.innerHeight * 0.9) return;
      node.scrollIntoView({ block: centre ? "center" : "nearest", inline: "nearest" });
    });
  }

  // ---- events ------------------------------------------------------------------------------

  indexOf(event) {
    const node = event.target.closest?.(".chip");
    return node ? Number(node.dataset.i) : null;
  }

  // Tokens that a claim rests on, lit while something else on the page points at the claim.
  showEvidence(span) {
    for (const node of this.nodes) node.classList.remove("evidence");
    if (!span) return;
    const [first, last] = span.map((p) => this.indexAt(p));
    for (let i = first; i <= last; i++) this.nodes[i].classList.add("evidence");
  }

  over(event) {
    if (event.pointerType === "touch") return;
    const i = this.indexOf(event);
    const detail = i === null ? null : this.chips[i].position;
    window.dispatchEvent(new CustomEvent("nla:token", { detail }));
    if (i !== null && this.pressed !== undefined && (i !== this.pressed || this.dragged)) {
      this.dragged = true;
      this.root.classList.add("dragging");
      getSelection()?.removeAllRanges();
      this.hideCard();
      this.setRange([this.pressed, i]);
    } else if (i !== null && i !== this.locked) this.showCard(i);
    else this.hideCard();
  }

  down(event) {
    this.dragged = false;
    if (event.pointerType === "touch" || event.button !== 0 || event.shiftKey) return;
    this.pressed = this.indexOf(event) ?? undefined;
  }

  up() {
    if (this.pressed !== undefined && this.dragged) this.commitRange(this.range);
    this.pressed = undefined;
    setTimeout(() => { this.dragged = false; }); // after the click that ends it
    this.root.classList.remove("dragging");
  }

  focused(event) {
    const i = this.indexOf(event);
    if (i === null) return;
    this.rove(i);
    if (this.locked === null && this.nodes[i].matches(":focus-visible")) this.showCard(i);
  }

  click(event) {
    const i = this.indexOf(event);
    if (i === null || this.dragged) return;
    if (event.shiftKey) {
      getSelection()?.removeAllRanges();
      this.commitRange([this.locked ?? this.cursor ?? i, i]);
      return;
    }
    this.focus(i);
    if (i !== this.locked || this.timer) this.commit(i);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const i = this.indexOf(event) ?? this.cursor;
    if (i === null) return;
    if (event.key === "Enter" || event.key === " ") {
      this.commit(i);
    } else if (event.key === "Escape") {
      this.hideCard();
      if (this.locked !== null) this.commit(null);
      else if (this.range) this.commitRange(null);
      else return;
    } else {
      const next = this.target(event.key, i);
      if (next === undefined) return;
      if (next !== null && next !== i) {
        if (event.shiftKey) this.extend(next);
        else this.move(next);
      }
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // Without a lock the card follows the keyboard; with one, the lock does, and the panel when the
  // keys come to rest.
  move(i) {
    const locked = this.locked !== null;
    if (locked) this.lock(i);
    this.focus(i);
    if (!locked) return this.showCard(i);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.commit(i), SETTLE_MS);
  }

  // Shift and an arrow: the range goes from where the reader stood to where the keyboard is.
  extend(i) {
    this.anchor ??= this.cursor;
    this.setRange([this.anchor, i]);
    this.focus(i);
    clearTimeout(this.rangeTimer);
    this.rangeTimer = setTimeout(() => {
      this.commitRange(this.range);
      this.anchor = undefined;
    }, SETTLE_MS * 3);
  }

  // n and p: the next and the previous token that holds the phrase, from wherever the focus is.
  keyAnywhere(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.hits?.length) return;
    if (event.key !== "n" && event.key !== "p") return;
    if (event.composedPath()[0].closest?.("input, textarea, select, [contenteditable=true]")) return;
    const from = this.locked ?? -1;
    const after = this.hits.filter((i) => i > from);
    const before = this.hits.filter((i) => i < from);
    const next = event.key === "n" ? (after[0] ?? this.hits[0]) : (before.at(-1) ?? this.hits.at(-1));
    event.preventDefault();
    this.focus(next);
    this.commit(next);
  }

  target(key, i) {
    const stops = this.visible();
    const at = stops.indexOf(i);
    if (key === "ArrowRight") return stops[at + 1] ?? null;
    if (key === "ArrowLeft") return stops[at - 1] ?? null;
    if (key === "Home") return stops[0];
    if (key === "End") return stops[stops.length - 1];
    if (key === "ArrowDown") return this.line(stops, at, 1);
    if (key === "ArrowUp") return this.line(stops, at, -1);
    return undefined;
  }

  // The chip above or below: the nearest by middle on the first line met in that direction.
  line(stops, at, by) {
    const here = this.nodes[stops[at]].getBoundingClientRect();
    const x = (here.left + here.right) / 2;
    let best = null;
    let row = null;
    let distance = Infinity;
    for (let k = at + by; k >= 0 && k < stops.length; k += by) {
      const box = this.nodes[stops[k]].getBoundingClientRect();
      if (by * (box.top - here.top) < here.height * 0.6) continue;
      if (row !== null && by * (box.top - row) > box.height * 0.6) break;
      row ??= box.top;
      const away = Math.abs((box.left + box.right) / 2 - x);
      if (away < distance) [best, distance] = [stops[k], away];
    }
    return best;
  }

  // ---- the card that hovering shows --------------------------------------------------------

  showCard(i) {
    const chip = this.chips[i];
    const head = el("div", "head");
    const token = el("span", "token");
    spell(token, chip.text);
    head.append(token);
    const value = this.scale.colour.values[i];
    const measured = this.scale.colour.short && value !== null;
    const numbers = chip.fve === null ? [] : [`FVE ${number(chip.fve)}`];
    if (measured) numbers.push(`${this.scale.colour.short} ${number(value)}`);
    head.append(el("span", "fve", numbers.join(" · ")));
    const parts = [head];
    if (chip.fve !== null || chip.explanation) {
      const detail = chip.quiet ?? chip.explanation.length;
      const note = chip.explanation.slice(0, detail).trimEnd();
      parts.push(el("div", chip.quiet ? "said note" : "said", note || "(empty)"));
      if (chip.quiet) parts.push(el("div", "rest", chip.explanation.slice(detail)));
      if (chip.fve === null) parts.push(el("div", "none", "Its score follows."));
    } else {
      parts.push(el("div", "none", chip.failure || this.drawing.unread));
    }
    if (chip.flags.length) {
      const names = chip.flags.map((f) => this.flagNames[f] ?? f).join(" · ");
      parts.push(el("div", "warn", names));
    }
    this.card.replaceChildren(...parts);
    this.card.hidden = false;
    this.place(this.nodes[i]);
  }

  place(node) {
    const frame = this.root.getBoundingClientRect();
    const rects = node.getClientRects();
    const box = rects[rects.length - 1] ?? node.getBoundingClientRect();
    const width = this.card.offsetWidth;
    const height = this.card.offsetHeight;
    const left = Math.min(Math.max(box.left - frame.left, 0), Math.max(frame.width - width, 0));
    const below = box.bottom + height + 14 < window.innerHeight || box.top < height + 80;
    const top = below ? box.bottom - frame.top + 8 : box.top - frame.top - height - 8;
    this.card.style.left = `${left}px`;
    this.card.style.top = `${top}px`;
  }

  hideCard() {
    this.card.hidden = true;
  }
}
