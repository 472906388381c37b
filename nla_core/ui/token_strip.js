// The token strip: draws chips once, then only toggles classes.
//
// Knows pointer, keyboard and touch behaviour, and how invisible characters are made visible. Does
// not know what a reading means: it gets numbers and texts and reports positions. Text of users and
// models enters the page through textContent only.

const SETTLE_MS = 160; // how long the keyboard rests before the panel follows
const SETTLED_MS = 250; // how long a page that was just painted is left alone
const ECHO_MS = 2000; // how long an older answer of the server may still arrive

const INVISIBLE = /[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb]/;
const ROLE_NAME = { system: "System", user: "User", assistant: "Assistant" };

const strips = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".strip");
  if (!root || !data) return;
  let strip = strips.get(root);
  if (!strip) {
    strip = new Strip(root);
    strips.set(root, strip);
  }
  strip.send = (position) => setTriggerValue("lock", { position });
  strip.show(data);
  if (data.tell && !strip.told) {
    strip.told = true;
    // After two frames it is on the screen. A breath more, since what is asked for then keeps the
    // browser busy for a second: first the page may settle and answer to the pointer.
    const tell = () => setTimeout(() => setTriggerValue("painted", true), SETTLED_MS);
    requestAnimationFrame(() => requestAnimationFrame(tell));
  }
}

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Appends text to node so that every character leaves a mark; returns how many line breaks trail.
function spell(node, text) {
  const trailing = /\n*$/.exec(text)[0].length;
  const blank = /^\s*$/u.test(text);
  let run = "";
  const flush = () => {
    if (run) node.append(run);
    run = "";
  };
  const mark = (symbol) => {
    flush();
    node.append(el("span", "ws", symbol));
  };
  const characters = Array.from(text);
  characters.forEach((c, i) => {
    if (c === "\n") {
      mark("↵");
      if (i < characters.length - trailing) node.append("\n");
    } else if (c === "\t") {
      mark("⇥");
    } else if (c === " ") {
      if (blank || characters[i + 1] === " " || characters[i - 1] === " ") mark("·");
      else run += c;
    } else if (INVISIBLE.test(c)) {
      mark("U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"));
    } else {
      run += c;
    }
  });
  flush();
  if (!text) node.append(el("span", "ws", "∅"));
  return trailing;
}

function spoken(text) {
  if (text === "") return "nothing";
  return text.replace(/\n/g, " line break ").replace(/\t/g, " tab ").trim() || "space";
}

const number = (fve) => fve.toFixed(2).replace("-", "−");

class Strip {
  constructor(root) {
    this.root = root;
    this.body = root.querySelector(".turns");
    this.legend = root.querySelector(".legend");
    this.card = root.querySelector(".card");
    this.id = null;
    this.chips = [];
    this.nodes = [];
    this.locked = null; // index of a chip, as are cursor and sent
    this.cursor = null;
    this.body.addEventListener("pointerover", (e) => this.over(e));
    this.body.addEventListener("pointerleave", () => this.hideCard());
    this.body.addEventListener("click", (e) => this.click(e));
    this.body.addEventListener("keydown", (e) => this.key(e));
    this.body.addEventListener("focusin", (e) => this.focused(e));
    this.body.addEventListener("focusout", () => this.hideCard());
  }

  show(data) {
    const fresh = data.id !== this.id;
    if (fresh) this.build(data);
    this.root.classList.toggle("hide-markup", !data.markup);
    this.markup = data.markup;
    const wanted = data.locked === null ? null : (this.at.get(data.locked) ?? null);
    if (!fresh && this.timer) return; // the reader is already further on
    if (!fresh && this.sent !== undefined && wanted !== this.sent) {
      if (Date.now() - this.sentAt < ECHO_MS) return;
    }
    this.sent = undefined;
    const moved = wanted !== this.locked;
    this.lock(wanted);
    if (wanted !== null && (fresh ? data.reveal : moved)) this.reveal(wanted, fresh);
    if (moved && wanted !== null && this.hasFocus()) this.focus(wanted);
  }

  build(data) {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.id = data.id;
    this.scale = data.scale;
    this.flagNames = data.flags;
    this.chips = data.chips;
    this.locked = this.cursor = null;
    this.sent = undefined;
    this.at = new Map();
    this.nodes = [];
    this.hideCard();
    this.drawLegend();
    const turns = document.createDocumentFragment();
    let turn = null;
    let text = null;
    this.chips.forEach((chip, i) => {
      const role = chip.role;
      if (turn?.dataset.turn !== String(chip.turn) || turn.dataset.role !== role) {
        turn = el("section", "turn bare");
        turn.dataset.turn = String(chip.turn);
        turn.dataset.role = role;
        turn.setAttribute("role", "group");
        turn.setAttribute("aria-label", `${ROLE_NAME[role] ?? role} message`);
        const name = el("div", "role", ROLE_NAME[role] ?? role);
        name.setAttribute("aria-hidden", "true");
        text = el("div", "text");
        text.setAttribute("role", "presentation");
        text.dir = "auto";
        turn.append(name, text);
        turns.append(turn);
      }
      if (!chip.markup) turn.classList.remove("bare");
      chip.positions.forEach((p) => this.at.set(p, i));
      const node = this.draw(chip, i);
      const breaks = spell(node, chip.text);
      this.nodes.push(node);
      text.append(node);
      for (let b = 0; b < breaks; b++) text.append(el("br", chip.markup ? "markup" : ""));
    });
    this.body.replaceChildren(turns);
    if (this.nodes.length) this.rove(this.visible()[0] ?? 0);
  }

  draw(chip, i) {
    const node = el("span", "chip");
    node.dataset.i = String(i);
    node.dataset.p = String(chip.position);
    node.tabIndex = -1;
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", "false");
    let label = spoken(chip.text);
    if (chip.markup) node.classList.add("markup");
    if (chip.fve === null) {
      node.classList.add("unread");
      label += ", no reading";
    } else {
      node.classList.add("f" + this.stepOf(chip.fve));
      node.style.setProperty("--bar", this.barOf(chip.fve) + "px");
      label += `, fidelity ${chip.fve.toFixed(2)}`;
    }
    if (chip.flags.length) {
      // Low fidelity shows already: no bar, and the pale end of the scale.
      if (chip.flags.some((f) => f !== "low_fidelity")) node.classList.add("flagged");
      label += ", " + chip.flags.map((f) => this.flagNames[f] ?? f).join(", ");
    }
    node.setAttribute("aria-label", label);
    return node;
  }

  stepOf(fve) {
    const { low, high, steps } = this.scale;
    const share = (Math.min(Math.max(fve, low), high) - low) / (high - low);
    return Math.min(Math.floor(share * steps), steps - 1);
  }

  barOf(fve) {
    return Math.round(this.scale.bar * Math.min(Math.max(fve, 0), 1) * 100) / 100;
  }

  drawLegend() {
    const { low, high, steps } = this.scale;
    const ramp = el("span", "ramp");
    for (let s = 0; s < steps; s++) {
      const middle = low + ((s + 0.5) * (high - low)) / steps;
      const cell = el("span", "cell f" + s);
      cell.style.setProperty("--bar", this.barOf(middle) + "px");
      ramp.append(cell);
    }
    const flagged = el("span", "key");
    flagged.append(el("span", "cell f0 flagged"), "flagged");
    this.legend.replaceChildren(
      el("span", "name", "Fidelity (FVE)"),
      el("span", "end", "≤ " + number(low)), ramp, el("span", "end", number(high)), flagged,
    );
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
  }

  commit(i) {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.lock(i);
    this.sent = i;
    this.sentAt = Date.now();
    this.send(i === null ? null : this.chips[i].position);
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

  over(event) {
    if (event.pointerType === "touch") return;
    const i = this.indexOf(event);
    if (i !== null && i !== this.locked) this.showCard(i);
    else this.hideCard();
  }

  focused(event) {
    const i = this.indexOf(event);
    if (i === null) return;
    this.rove(i);
    if (this.locked === null && this.nodes[i].matches(":focus-visible")) this.showCard(i);
  }

  click(event) {
    const i = this.indexOf(event);
    if (i === null) return;
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
      if (this.locked === null) return;
      this.commit(null);
    } else {
      const next = this.target(event.key, i);
      if (next === undefined) return;
      if (next !== null && next !== i) this.move(next);
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
    if (chip.fve !== null) head.append(el("span", "fve", `FVE ${number(chip.fve)}`));
    const parts = [head];
    if (chip.fve === null) {
      parts.push(el("div", "none", "No reading: a token of the chat template."));
    } else {
      parts.push(el("div", "said", chip.explanation || "(empty)"));
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
