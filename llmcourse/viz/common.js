// Shared by all widgets: makes elements, keeps keys. No imports, no network.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

let count = 0;
const fresh = () => `llmcourse-${++count}`;

// Keys stay in the widget: JupyterLab would otherwise take arrows and letters as its own commands.
function keepKeys(root) {
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => { if (event.key !== "Tab") event.stopPropagation(); });
}

function frame(spec) {
  const root = element("section", { class: "llmcourse-widget", "aria-label": spec.title });
  const asked = spec.lecture || new URLSearchParams(location.search).has("lecture");
  if (asked || document.body.dataset.voila) root.classList.add("llmcourse-lecture"); // a demo page is for a projector
  return root;
}
