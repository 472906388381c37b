// How a token strip is drawn: marks for invisible characters, turns and chips, the legend, the map
// of a long transcript. Knows nothing of pointer or keyboard. Text of users and models enters the
// page through textContent only. Read in front of token_strip.js.

const INVISIBLE = /[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb]/;
const ROLE_NAME = { system: "System", user: "User", assistant: "Assistant" };
const MAP_FROM = 300; // chips from which a map is worth its place
const MAP_CELLS = 240;
const PIECE_FROM = 40; // chips after which a line break begins a new piece of a turn
const PIECE_MOST = 400; // and the most in a piece; the browser paints the pieces that are in sight

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

const number = (value) => value.toFixed(2).replace("-", "−");

// A measure on a scale: which of the steps of the palette, and how high the bar under the token.
class Scale {
  constructor(colour, steps, bar) {
    Object.assign(this, { colour, steps, bar });
  }

  step(value) {
    const { low, high } = this.colour;
    const share = (Math.min(Math.max(value, low), high) - low) / (high - low);
    return Math.min(Math.floor(share * this.steps), this.steps - 1);
  }

  height(value) {
    const { zero, high } = this.colour;
    const share = Math.min(Math.max((value - zero) / (high - zero), 0), 1);
    return Math.round(this.bar * share * 100) / 100;
  }

  legend(hits) {
    const { low, high, name, ends } = this.colour;
    if (!ends[0] && !ends[1]) return [el("span", "name", name)]; // nothing is measured
    const ramp = el("span", "ramp");
    for (let s = 0; s < this.steps; s++) {
      const middle = low + ((s + 0.5) * (high - low)) / this.steps;
      const cell = el("span", "cell f" + s);
      cell.style.setProperty("--bar", this.height(middle) + "px");
      ramp.append(cell);
    }
    const flagged = el("span", "key");
    flagged.append(el("span", "cell f0 flagged"), "flagged");
    const parts = [el("span", "name", name), el("span", "end", ends[0]), ramp, el("span", "end", ends[1]), flagged];
    if (hits) {
      const hit = el("span", "key");
      hit.append(el("span", "cell f0 hit"), `${hits} ${this.colour.hitWords}`);
      parts.push(hit);
    }
    return parts;
  }
}

// The turns of a conversation, one chip a token. Returns the section elements and the chip nodes.
function drawTurns(chips, label) {
  const turns = document.createDocumentFragment();
  const nodes = [];
  let turn = null;
  let text = null;
  let piece = null;
  let inPiece = 0;
  const begin = () => {
    piece = el("div", "piece");
    piece.setAttribute("role", "presentation");
    text.append(piece);
    inPiece = 0;
  };
  chips.forEach((chip, i) => {
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
      begin();
    }
    if (!chip.markup) turn.classList.remove("bare");
    const node = el("span", chip.markup ? "chip markup" : "chip");
    node.dataset.i = String(i);
    node.dataset.p = String(chip.position);
    node.tabIndex = -1;
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", "false");
    // Low fidelity shows already: no bar, and the pale end of the scale.
    if (chip.flags.some((f) => f !== "low_fidelity")) node.classList.add("flagged");
    node.setAttribute("aria-label", label(chip));
    const breaks = spell(node, chip.text);
    nodes.push(node);
    piece.append(node);
    for (let b = 0; b < breaks; b++) piece.append(el("br", chip.markup ? "markup" : ""));
    inPiece += 1;
    const follows = chips[i + 1]?.turn === chip.turn && chips[i + 1]?.role === role;
    if (follows && inPiece >= (breaks ? PIECE_FROM : PIECE_MOST)) begin();
  });
  return [turns, nodes];
}

// The whole transcript in one line of cells: where it can be read well, where the hits and the
// reader are.
class Overview {
  constructor(node, go) {
    this.node = node;
    node.addEventListener("click", (e) => {
      const cell = e.target.closest("[data-first]");
      if (cell) go(Number(cell.dataset.first));
    });
  }

  draw(chips, scale, shown, hits) {
    this.node.hidden = shown.length < MAP_FROM;
    if (this.node.hidden) return;
    const size = Math.ceil(shown.length / MAP_CELLS);
    const cells = [];
    for (let at = 0; at < shown.length; at += size) {
      const part = shown.slice(at, at + size);
      const values = part.map((i) => scale.colour.values[i]).filter((v) => v !== null);
      const mean = values.reduce((sum, v) => sum + v, 0) / (values.length || 1);
      const cell = el("span", values.length ? "f" + scale.step(mean) : "");
      cell.dataset.first = String(part[0]);
      cell.dataset.last = String(part[part.length - 1]);
      if (part.some((i) => hits.has(i))) cell.classList.add("hit");
      cells.push(cell);
    }
    this.node.replaceChildren(...cells);
  }

  mark(i) {
    if (this.node.hidden) return;
    for (const cell of this.node.children) {
      const here = i !== null && i >= Number(cell.dataset.first) && i <= Number(cell.dataset.last);
      cell.classList.toggle("here", here);
    }
  }
}
