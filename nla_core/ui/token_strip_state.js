// What changes while a token strip is read: handed to the strip of that id, which may be drawn
// before this or after. Left in `window` for the second case, told by an event for the first.

export default function ({ data }) {
  if (!data) return;
  (window.nlaStripState ??= new Map()).set(data.strip, data);
  window.dispatchEvent(new CustomEvent("nla:strip-state", { detail: data }));
}
