// Tells the text after each pause in typing; see edit_box.py.
const PAUSE_MS = 350;

export default function ({ data, parentElement, setStateValue }) {
  const area = parentElement.querySelector("textarea");
  if (!area) return;
  parentElement.querySelector("span").textContent = data.label;
  area.maxLength = data.longest;
  const typing = area.getRootNode().activeElement === area;
  if (area.dataset.of !== data.of || (!typing && area.value !== data.text)) {
    clearTimeout(area.pause);
    area.dataset.of = data.of;
    area.value = data.text;
  }
  const tell = () => {
    clearTimeout(area.pause);
    if (area.value !== area.told) setStateValue("text", area.value);
    area.told = area.value;
  };
  area.oninput = () => {
    clearTimeout(area.pause);
    area.told = null;
    area.pause = setTimeout(tell, PAUSE_MS);
  };
  area.onblur = () => { if (area.told === null) tell(); };
}
