// Draws a CourseWidget: real inputs with labels, the picture Python sent, a live sentence, a table.
// One change is under way at a time; while the kernel works only the newest further change is kept.

function slider(spec, id, send) {
  const input = element("input", { id, type: "range", min: 0, max: spec.texts.length - 1, step: 1 });
  const output = element("output", { for: id });
  const say = () => {
    output.textContent = spec.texts[input.value];
    input.setAttribute("aria-valuetext", spec.texts[input.value]);
  };
  input.addEventListener("input", say);
  input.addEventListener("change", () => send(Number(input.value)));
  return { input, nodes: [input, output], put: (value) => { input.value = value; say(); } };
}

function choice(spec, id, send) {
  const input = element("select", { id }, ...spec.options.map((text) => element("option", { value: text }, text)));
  input.addEventListener("change", () => send(input.value));
  return { input, nodes: [input], put: (value) => { input.value = value; } };
}

function toggle(spec, id, send) {
  const input = element("input", { id, type: "checkbox" });
  input.addEventListener("change", () => send(input.checked));
  return { input, nodes: [input], put: (value) => { input.checked = value; } };
}

function text(spec, id, send) {
  const input = element("input", { id, type: "text", maxlength: spec.limit, spellcheck: "false" });
  input.addEventListener("change", () => send(input.value));
  return { input, nodes: [input], put: (value) => { input.value = value; } };
}

const MAKERS = { slider, choice, switch: toggle, text };

function controls(model, root, spec) {
  let pending = null;
  let busy = false;
  const submit = (change) => {
    pending = { ...(pending || model.get("raw")), ...change };
    if (busy) return;
    busy = true;
    root.setAttribute("aria-busy", "true");
    model.set("raw", { ...pending, change: model.get("raw").change + 1 });
    pending = null;
    model.save_changes();
  };
  const done = () => {
    busy = false;
    root.removeAttribute("aria-busy");
    if (pending) submit({});
  };
  const panel = element("div", { class: "llmcourse-controls" });
  const made = {};
  for (const control of spec.controls) {
    const id = fresh();
    const one = MAKERS[control.kind](control, id, (value) => submit({ [control.name]: value }));
    one.input.classList.add("llmcourse-control", `llmcourse-${control.kind}`, `llmcourse-control-${control.name}`);
    panel.append(element("div", { class: "llmcourse-row" }, element("label", { for: id }, control.label), ...one.nodes));
    made[control.name] = one;
  }
  for (const [name, values] of Object.entries(spec.presets)) {
    const button = element("button", { type: "button", class: "llmcourse-preset" }, name);
    button.addEventListener("click", () => submit(values));
    panel.append(button);
  }
  const put = () => {
    for (const [name, one] of Object.entries(made)) one.put(model.get("raw")[name]);
  };
  return { panel, put, done };
}

function render({ model, el }) {
  const spec = model.get("spec");
  if (!spec.controls) {                            // a page may open before its kernel has said what is on it
    const described = () => {                        // the model that a widget is given has on and off, and no once
      if (!model.get("spec").controls) return;
      model.off("change:spec", described);
      render({ model, el });
    };
    model.on("change:spec", described);
    return;
  }
  const root = frame(spec);
  const { panel, put, done } = controls(model, root, spec);
  const picture = element("div", { class: "llmcourse-view" });
  const said = element("p", { class: "llmcourse-summary", "aria-live": "polite" });
  const error = element("p", { class: "llmcourse-error", role: "alert" });
  const numbers = element("div", { class: "llmcourse-table" });
  const details = element("details", {}, element("summary", {}, "Numbers"), numbers);
  root.append(panel);
  if (spec.question) root.append(element("p", { class: "llmcourse-question" }, `First guess: ${spec.question}`));
  root.append(picture, said, error, details);
  if (spec.answer) root.append(element("details", {}, element("summary", {}, "What to see"), spec.answer));
  const show = () => {
    const view = model.get("view");
    picture.innerHTML = view.svg;
    numbers.innerHTML = view.table;
    said.textContent = view.summary;
    error.textContent = view.error;
    root.dataset.done = view.change;
    done();
  };
  model.on("change:view", show);
  model.on("change:raw", put);
  keepKeys(root);
  put();
  show();
  el.append(root);
  return () => { model.off("change:view", show); model.off("change:raw", put); };
}

export default { render };
