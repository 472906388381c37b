// The list of transcripts: real links, so that they can be opened in a new tab; a plain click is
// answered inside the page. Titles come from users and enter through textContent only.

const shown = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  const nav = parentElement.querySelector(".library");
  if (!nav || !data) return;
  nav.onclick = (event) => {
    const link = event.target.closest("a[data-id]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    mark(nav, link.dataset.id);
    setTriggerValue("open", { id: link.dataset.id });
    // On a phone the list covers the page that was just asked for.
    if (window.innerWidth < 768) {
      document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click();
    }
  };
  const drawn = shown.get(nav);
  const content = JSON.stringify(data.groups);
  if (drawn !== content) {
    build(nav, data);
    shown.set(nav, content);
  }
  for (const link of nav.querySelectorAll("a[data-id]")) link.href = "?" + data.links[link.dataset.id];
  mark(nav, data.current, drawn === undefined);
}

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function build(nav, data) {
  const groups = data.groups.map((group) => {
    const list = el("ul");
    for (const item of group.items) {
      const link = el("a", item.failed ? "failed" : "");
      link.dataset.id = item.id;
      const facts = el("span", "facts", item.facts);
      if (item.fve !== null) {
        const meter = el("span", "meter");
        meter.title = `mean FVE ${item.fve.toFixed(2)}`;
        meter.style.setProperty("--share", String(Math.min(Math.max(item.fve, 0), 1)));
        facts.prepend(meter);
      }
      link.append(el("span", "title", item.title), facts);
      const row = el("li");
      row.append(link);
      list.append(row);
    }
    if (group.name === null) return list;
    const box = el("details");
    box.open = true;
    const summary = el("summary", "", group.name);
    summary.append(el("span", "count", String(group.items.length)));
    box.append(summary, list);
    return box;
  });
  nav.replaceChildren(...groups);
}

function mark(nav, id, reveal) {
  for (const link of nav.querySelectorAll("a[data-id]")) {
    const here = link.dataset.id === id;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (here && reveal) requestAnimationFrame(() => bringIntoSight(link));
  }
}

// Scrolls the sidebar only: scrollIntoView would move the page too. On a phone the sidebar begins
// with the menu of pages, which would be scrolled away.
function bringIntoSight(link) {
  if (window.innerWidth < 768) return;
  const box = link.getBoundingClientRect();
  if (box.top > 60 && box.bottom < window.innerHeight - 20) return;
  let scroller = link.getRootNode().host;
  while (scroller && scroller.scrollHeight <= scroller.clientHeight + 1) scroller = scroller.parentElement;
  if (scroller?.closest('[data-testid="stSidebar"]')) {
    scroller.scrollTop += box.top - window.innerHeight / 2;
  }
}
