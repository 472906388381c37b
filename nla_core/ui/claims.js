// An explanation with its claims lit by standing, and the list of them below.
//
// Pointing at a claim lights its evidence in the transcript, and pointing at a token lights the
// claims that rest on it; the token strip and this speak through events of the window. Texts come
// from models and users and enter through textContent only.

const drawn = new WeakMap();

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".claims");
  if (!root || !data) return;
  let view = drawn.get(root);
  if (!view) {
    view = new Claims(root);
    drawn.set(root, view);
  }
  view.show(data);
}

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

class Claims {
  constructor(root) {
    this.root = root;
    this.said = root.querySelector(".explanation");
    this.list = root.querySelector(".list");
    root.addEventListener("pointerover", (e) => this.point(e.target));
    root.addEventListener("pointerleave", () => this.light([]));
    root.addEventListener("focusin", (e) => this.point(e.target));
    const over = (event) => {
      if (!root.isConnected) return window.removeEventListener("nla:token", over);
      const p = event.detail;
      const held = this.claims.map((c, i) => [c, i]).filter(([c]) => c.first !== null && p !== null && c.first <= p && p <= c.last);
      this.mark(held.map(([, i]) => i));
    };
    window.addEventListener("nla:token", over);
  }

  show(data) {
    const content = JSON.stringify(data);
    if (content === this.content) return;
    this.content = content;
    this.claims = data.claims;
    this.drawText(data.text, data.cut);
    this.list.replaceChildren(...data.claims.map((claim, i) => this.drawClaim(claim, i, data.words)));
    this.light([]);
  }

  // Claims overlap: a sentence holds quotations and names. Each stretch of the text looks like the
  // shortest claim that covers it and belongs to all that do.
  drawText(text, cut) {
    const edges = new Set([0, text.length]);
    for (const c of this.claims) edges.add(c.start).add(c.end);
    const at = [...edges].filter((e) => e <= text.length).sort((a, b) => a - b);
    const pieces = [];
    for (let k = 0; k + 1 < at.length; k++) {
      const covering = this.claims
        .map((c, i) => [c, i])
        .filter(([c]) => c.start <= at[k] && at[k + 1] <= c.end)
        .sort(([a], [b]) => a.end - a.start - (b.end - b.start));
      const piece = text.slice(at[k], at[k + 1]);
      if (!covering.length) {
        pieces.push(piece);
        continue;
      }
      const node = el("mark", "claim " + covering[0][0].standing, piece);
      node.dataset.claims = covering.map(([, i]) => i).join(" ");
      pieces.push(node);
    }
    if (cut) pieces.push(" […]");
    this.said.replaceChildren(...pieces);
  }

  drawClaim(claim, i, words) {
    const row = el("li", claim.standing);
    row.dataset.claims = String(i);
    row.tabIndex = 0;
    const head = el("div", "head");
    head.append(el("span", "tag " + claim.standing, words[claim.standing]), el("q", "", claim.text));
    row.append(head);
    const facts = [claim.kind, claim.recurs];
    if (claim.evidence) facts.push(`${claim.rests} “${claim.evidence}”, ${claim.where}`);
    row.append(el("div", "facts", facts.filter(Boolean).join(" · ")));
    return row;
  }

  point(target) {
    const node = target.closest?.("[data-claims]");
    this.light(node ? node.dataset.claims.split(" ").map(Number) : []);
  }

  light(indices) {
    this.mark(indices);
    const claim = this.claims[indices[0]];
    const detail = claim && claim.first !== null ? [claim.first, claim.last] : null;
    window.dispatchEvent(new CustomEvent("nla:evidence", { detail }));
  }

  mark(indices) {
    for (const node of this.root.querySelectorAll("[data-claims]")) {
      const own = node.dataset.claims.split(" ").map(Number);
      node.classList.toggle("lit", own.some((i) => indices.includes(i)));
    }
  }
}
