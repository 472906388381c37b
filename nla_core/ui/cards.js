// Lists of links with something to look at: readings, transcripts, search results.
//
// Draws what it gets and reports what was chosen. Real links, so that they open in a new tab; a
// plain click is answered inside the app. Texts come from models and users and enter through
// textContent only.

const drawn = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".cards");
  if (!root || !data) return;
  root.onclick = (event) => {
    const button = event.target.closest("button[data-action]");
    if (button) {
      setTriggerValue("act", { action: button.dataset.action, id: button.dataset.id });
      return;
    }
    const link = event.target.closest("a[data-query]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    setTriggerValue("open", { query: link.dataset.query });
  };
  const content = JSON.stringify(data);
  if (drawn.get(root) === content) return;
  drawn.set(root, content);
  root.setAttribute("aria-label", data.label);
  root.className = "cards " + data.layout;
  const kept = root.getRootNode().activeElement?.dataset;
  root.replaceChildren(...data.groups.map((group) => drawGroup(group, data)));
  refocus(root, kept);
}

// Whoever judges with the keyboard stays at the card that was judged.
function refocus(root, kept) {
  if (!kept?.id && !kept?.query) return;
  const nodes = [...root.querySelectorAll("button[data-id], a[data-query]")];
  const same = (node) => (kept.id ? node.dataset.id === kept.id : node.dataset.query === kept.query);
  const exact = nodes.find((node) => same(node) && node.dataset.action === kept.action);
  (exact ?? nodes.find(same))?.focus({ preventScroll: true });
}

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function anchor(query, base, className) {
  const link = el("a", className);
  link.href = base + "?" + query;
  link.dataset.query = query;
  return link;
}

function drawGroup(group, data) {
  const box = el("section", "group");
  if (group.title) {
    const head = group.query ? anchor(group.query, data.base, "head") : el("div", "head");
    head.append(el("span", "title", group.title));
    if (group.facts) head.append(el("span", "facts", group.facts));
    box.append(head);
  }
  const list = el("ul");
  for (const item of group.items) {
    const row = el("li");
    row.append(drawItem(item, data));
    if (item.actions?.length) {
      const actions = el("div", "actions");
      for (const { action, label } of item.actions) {
        const button = el("button", "", label);
        button.type = "button";
        button.dataset.action = action;
        button.dataset.id = item.id;
        actions.append(button);
      }
      row.append(actions);
    }
    list.append(row);
  }
  box.append(list);
  return box;
}

function drawItem(item, data) {
  const link = anchor(item.query, data.base, item.failed ? "card failed" : "card");
  if (item.title) {
    const title = el("span", "title");
    if (item.token !== undefined) title.append(el("code", "", item.token), " ");
    title.append(item.title);
    link.append(title);
  }
  if (item.spark) link.append(spark(item.spark, item.sparkLabel));
  if (item.text) {
    const detail = item.quiet ?? item.text.length;
    link.append(lit(item.text, item.spans ?? [], 0, detail, "said"));
    if (item.quiet) link.append(lit(item.text, item.spans ?? [], detail, item.text.length, "rest"));
  }
  const facts = el("span", "facts");
  if (typeof item.fve === "number") {
    const meter = el("span", "meter");
    meter.style.setProperty("--share", String(Math.min(Math.max(item.fve, 0), 1)));
    facts.append(meter);
  }
  facts.append(item.facts);
  if (item.facts) link.append(facts);
  if (item.why) link.append(el("span", "why", item.why));
  return link;
}

// The stretch from `low` to `high`, with the spans lit that lie in it.
function lit(text, spans, low, high, className) {
  const node = el("span", className);
  let at = low;
  for (const span of spans) {
    const start = Math.max(span[0], low);
    const end = Math.min(span[1], high);
    if (start < at || end <= start) continue;
    node.append(text.slice(at, start), el("mark", "", text.slice(start, end)));
    at = end;
  }
  node.append(text.slice(at, high).trimEnd());
  return node;
}

// Values from 0 to 1, null where there is nothing; drawn as a line over a faint zero line.
function spark(values, label) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const step = values.length > 1 ? 100 / (values.length - 1) : 0;
  let path = "";
  let pen = "M";
  values.forEach((value, i) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const y = 22 - 20 * Math.min(Math.max(value, 0), 1);
    path += `${pen}${(i * step).toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  const zero = document.createElementNS(space, "path");
  zero.setAttribute("d", "M0 22.5H100");
  zero.setAttribute("class", "zero");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(zero, line);
  return svg;
}
