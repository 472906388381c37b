// Keys that work on every page: / goes to the search field, ? lists all keys.

const started = new WeakSet();

export default function ({ parentElement }) {
  const dialog = parentElement.querySelector("dialog");
  if (!dialog || started.has(dialog)) return;
  started.add(dialog);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("button")) dialog.close();
  });
  const anywhere = (event) => {
    if (!dialog.isConnected) return document.removeEventListener("keydown", anywhere);
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.composedPath()[0].closest?.("input, textarea, select, [contenteditable=true]")) return;
    if (event.key === "?") {
      event.preventDefault();
      dialog.showModal();
    } else if (event.key === "/") {
      const fields = [
        ...document.querySelectorAll('[data-testid="stMain"] input[type="search"]'),
        ...document.querySelectorAll('[data-testid="stSidebar"] input[type="search"]'),
      ];
      if (!fields.length) return;
      event.preventDefault();
      fields[0].focus();
      fields[0].select();
    }
  };
  document.addEventListener("keydown", anywhere);
}
