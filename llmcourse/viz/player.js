// Plays the frames of an EventPlayer: no kernel is asked while it runs. At most 8 frames a second.

const SVG = "http://www.w3.org/2000/svg";
const SPEEDS = [["slow", 1000], ["normal", 400], ["fast", 125]];

function shape(tag, attributes, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

function grid(film) {
  const down = Math.ceil(film.blocks / film.across);
  const svg = shape("svg", { viewBox: `0 0 ${film.across * 30 + 44} ${down * 30 + 8}`, role: "img", width: "100%",
    style: `max-width:${film.across * 44 + 60}px`, "aria-label": "physical blocks by owner" });
  svg.append(shape("rect", { width: "100%", height: "100%", fill: "#fff", rx: 6 }));
  const cells = [];
  for (let block = 0; block < film.blocks; block++) {
    const x = 40 + (block % film.across) * 30;
    const y = 4 + Math.floor(block / film.across) * 30;
    const box = shape("rect", { x: x + 1, y: y + 1, width: 28, height: 28 });
    const tip = shape("title", {});
    const letter = shape("text", { x: x + 15, y: y + 20, "text-anchor": "middle", "font-size": 14, "font-weight": 600 });
    box.append(tip);
    svg.append(box, letter);
    if (block % film.across === 0) svg.append(shape("text", { x: 34, y: y + 20, "text-anchor": "end", "font-size": 12 }, String(block)));
    cells.push({ box, tip, letter });
  }
  return { svg, cells };
}

function paintGrid(film, cells, frame) {
  const owners = cells.map(() => []);
  for (const [owner, blocks] of frame.tables) for (const block of blocks) owners[block].push(film.owners[owner]);
  cells.forEach(({ box, tip, letter }, block) => {
    const who = owners[block];
    box.setAttribute("fill", who.length ? who[0].colour : "#fff");
    box.setAttribute("stroke", who.length ? "#1a1a1a" : "#999");
    box.setAttribute("stroke-width", who.length > 1 ? 3 : 1);
    letter.textContent = who.map((one) => one.letter).join("");
    tip.textContent = `block ${block}: ${who.map((one) => one.request).join(", ") || "free"}`;
  });
}

function paintTables(film, body, frame) {
  body.replaceChildren(...frame.tables.map(([owner, blocks, stored]) => element("tr", {},
    element("th", { scope: "row" }, film.owners[owner].letter), element("td", {}, blocks.join(" ")),
    element("td", {}, String(stored)), element("td", {}, String(blocks.length * film.block_size - stored)))));
}

function bar(film, go) {
  const id = fresh();
  const input = element("input", { id, type: "range", min: 0, max: film.frames.length - 1, step: 1,
    class: "llmcourse-control llmcourse-slider llmcourse-control-step" });
  const play = element("button", { type: "button", class: "llmcourse-play" }, "Play");
  const back = element("button", { type: "button" }, "Back");
  const next = element("button", { type: "button" }, "Next");
  const speed = element("select", { "aria-label": "speed" }, ...SPEEDS.map(([name, ms]) => element("option", { value: ms }, name)));
  speed.value = "400";
  const output = element("output", { for: id });
  const node = element("div", { class: "llmcourse-player-bar" }, play, back, next,
    element("label", { for: id }, "step"), input, output, speed);
  let timer = null;
  const stop = () => { clearTimeout(timer); timer = null; play.textContent = "Play"; };
  const tick = () => {
    go(Number(input.value) + 1);
    if (Number(input.value) >= film.frames.length - 1) return stop();
    timer = setTimeout(tick, Number(speed.value));
  };
  const toggle = () => {
    if (timer) return stop();
    if (Number(input.value) >= film.frames.length - 1) go(0);
    play.textContent = "Pause";
    timer = setTimeout(tick, Number(speed.value));
  };
  play.addEventListener("click", toggle);
  back.addEventListener("click", () => { stop(); go(Number(input.value) - 1); });
  next.addEventListener("click", () => { stop(); go(Number(input.value) + 1); });
  input.addEventListener("input", () => { stop(); go(Number(input.value)); });
  return { node, input, output, toggle, stop, back, next };
}

function keys(root, controls) {
  root.addEventListener("keydown", (event) => {
    const plain = !["SELECT", "SUMMARY"].includes(event.target.tagName);
    if (event.key === " " && plain && event.target.tagName !== "BUTTON") controls.toggle();
    else if (event.key === "ArrowRight" && plain && event.target !== controls.input) controls.next.click();
    else if (event.key === "ArrowLeft" && plain && event.target !== controls.input) controls.back.click();
    else return;
    event.preventDefault();
  });
}

function render({ model, el }) {
  const film = model.get("film");
  const root = frame(model.get("spec"));
  root.classList.add("llmcourse-player");
  root.tabIndex = 0;
  const timeline = element("div", { class: "llmcourse-view" });
  timeline.innerHTML = film.gantt;
  const cursor = shape("rect", { class: "llmcourse-cursor", y: film.y[0], width: 4, height: film.y[1] - film.y[0],
    fill: "#d55e00", opacity: 0.6 });
  timeline.querySelector("svg").append(cursor);
  const { svg, cells } = grid(film);
  const body = element("tbody", {});
  const head = ["owner", "blocks, in order", "tokens", "unused"].map((name) => element("th", { scope: "col" }, name));
  const tables = element("table", {}, element("caption", {}, "Block tables"), element("thead", {}, element("tr", {}, ...head)), body);
  const said = element("p", { class: "llmcourse-summary" });
  const go = (index) => {
    const at = Math.min(Math.max(index, 0), film.frames.length - 1);
    const now = film.frames[at];
    controls.input.value = at;
    controls.input.setAttribute("aria-valuetext", now.say);
    controls.output.textContent = String(now.step);
    cursor.setAttribute("x", film.x[at] - 2);
    paintGrid(film, cells, now);
    paintTables(film, body, now);
    said.textContent = now.say;
    root.dataset.done = at;
  };
  const controls = bar(film, go);
  keys(root, controls);
  keepKeys(root);
  const map = element("div", { class: "llmcourse-view llmcourse-blocks" }, svg);
  root.append(controls.node, said, timeline, element("div", { class: "llmcourse-side" }, map, tables));
  go(model.get("raw").step);
  const follow = () => go(model.get("raw").step);
  model.on("change:raw", follow);
  el.append(root);
  return () => { controls.stop(); model.off("change:raw", follow); };
}

export default { render };
