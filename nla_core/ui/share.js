// Sharing one reading: what a link points at, a note in it, and the reading in other formats.
//
// Knows the address under which this server was reached, which Python does not. The note is added
// here, so that typing asks the server for nothing. All texts enter the page as values or text.

const SAID_MS = 1800;
const shown = new WeakMap();

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".share");
  if (!root || !data) return;
  const content = JSON.stringify(data);
  if (shown.get(root) === content) return; // a run of the server does not wipe what was typed
  shown.set(root, content);

  const what = root.querySelector("select");
  const note = root.querySelector("textarea");
  const field = root.querySelector("input.link");
  const frame = root.querySelector("input.frame");
  const status = root.querySelector(".status");
  note.maxLength = data.longest;
  const before = what.selectedOptions[0]?.textContent;
  what.replaceChildren(
    ...data.targets.map(({ label, query }) => {
      const option = document.createElement("option");
      option.value = query;
      option.textContent = label;
      option.selected = label === before;
      return option;
    }),
  );

  const link = () => {
    const said = note.value.trim();
    const added = said && !note.disabled ? "&note=" + encodeURIComponent(said) : "";
    return location.origin + location.pathname + "?" + what.value + added;
  };
  const draw = () => {
    // A short link is looked up and has no room for a note.
    note.disabled = what.value.startsWith("r=");
    field.value = link();
    const address = link().replaceAll("&", "&amp;").replaceAll('"', "&quot;");
    frame.value = `<iframe src="${address}&amp;embed=true" title="NLA Explorer" width="100%" height="640" style="border:0"></iframe>`;
  };
  const copy = async (text, name, fallback) => {
    try {
      await navigator.clipboard.writeText(text);
      status.textContent = name + " copied";
    } catch { // no clipboard without https or permission: offer the text itself
      fallback.value = text;
      fallback.hidden = false;
      fallback.focus();
      fallback.select();
      status.textContent = "Press Ctrl+C to copy";
    }
    setTimeout(() => { status.textContent = ""; }, SAID_MS);
  };
  what.onchange = draw;
  note.oninput = draw;
  root.querySelector(".copy-link").onclick = () => copy(link(), "Link", field);
  root.querySelector(".copy-frame").onclick = () => copy(frame.value, "Frame", frame);
  const other = root.querySelector("textarea.other");
  other.hidden = true;
  for (const button of root.querySelectorAll("[data-format]")) {
    button.onclick = () => {
      const text = data.formats[button.dataset.format].replaceAll(data.placeholder, link());
      copy(text, button.textContent, other);
    };
  }
  draw();
}
