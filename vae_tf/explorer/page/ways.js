// Ways between two points, new draws from the prior, and a grid of the plane.
import { get, post, predict } from "./api.js";
import { clearSheet, paint, paintOnSheet, paintSheet, save, saveCanvas } from "./picture.js";
import { moved, project } from "./space.js";

const FRAME = 80; // milliseconds
const PRIOR_COLUMNS = 8, PRIOR_ROWS = 2;
const byId = (id) => document.getElementById(id);
const chosenOf = (name) => document.querySelector(`[name=${name}]:checked`).value;

// A number that its field takes, or the nearest.
function numberOf(id) {
  const { value, min, max } = byId(id);
  const number = Math.max(min, Math.min(max, Math.round(Number(value) || 0)));
  byId(id).value = number;
  return number;
}

export function wireWays({ state, view, goTo, shown, action, planeListeners }) {
  const ends = { A: null, B: null };
  let way = [], images = [], timer = null, drawn = null;

  function mark() {
    if (!state.plane) return;
    const placed = (z) => z && project(state.plane, z);
    view.setMarks({ A: placed(ends.A), B: placed(ends.B), way: way.map(placed), prior: drawn?.map(placed) });
  }
  planeListeners.push(mark);

  let gone = 0;
  async function go() {
    stop();
    mark();
    for (const id of ["play", "save-way", "save-animation"]) byId(id).disabled = !way.length;
    if (!ends.A || !ends.B) return;
    const mine = ++gone;
    const asked = { start: ends.A, stop: ends.B, points: numberOf("way-points"), path: chosenOf("path") };
    const { z } = await (await post("way", asked)).json();
    const decoded = await shown(z);
    if (mine !== gone) return; // another way was asked for
    [way, images] = [z, decoded];
    paintSheet(byId("way"), images, Math.min(images.length, 12));
    for (const id of ["play", "save-way", "save-animation"]) byId(id).disabled = false;
    mark();
    byId("way").dispatchEvent(new CustomEvent("shown", { detail: { z: way, images } }));
  }

  const set = (name) => action(() => {
    ends[name] = [...state.z];
    return go();
  });
  byId("set-a").addEventListener("click", set("A"));
  byId("set-b").addEventListener("click", set("B"));
  byId("plane").addEventListener("keydown", (event) => {
    const isCommand = event.ctrlKey || event.metaKey || event.altKey;
    if (!isCommand && (event.key === "a" || event.key === "b")) set(event.key.toUpperCase())();
  });
  byId("path").addEventListener("change", action(go));
  byId("way-points").addEventListener("change", action(go));

  function stop() {
    clearInterval(timer);
    timer = null;
    byId("play").textContent = "Play";
  }
  byId("play").addEventListener("click", () => {
    if (timer) return stop();
    byId("play").textContent = "Stop";
    let frame = 0;
    const last = images.length - 1;
    timer = setInterval(() => {
      const place = last - Math.abs(last - (frame % (2 * last || 1)));
      goTo(way[place], { image: images[place], passing: true });
      frame += 1;
    }, FRAME);
  });
  byId("plane").addEventListener("pointermove", () => timer && stop());
  byId("save-way").addEventListener("click", () => saveCanvas("way.png", byId("way")));
  byId("save-animation").addEventListener("click", action(async () => {
    const response = await post("animation.gif", { z: way });
    save("way.gif", await response.blob());
  }));

  const draw = action(async () => {
    state.seed = numberOf("seed");
    const seed = Array.from({ length: PRIOR_COLUMNS * PRIOR_ROWS }, (_, i) => state.seed + i);
    const found = await predict("sample", { seed });
    paintSheet(byId("prior"), chosenOf("shows") === "draw" ? found.image : found.mean, PRIOR_COLUMNS);
    drawn = found.z;
    mark();
  });
  byId("draw-prior").addEventListener("click", draw);
  byId("seed").addEventListener("change", draw);
  byId("next-prior").addEventListener("click", () => {
    byId("seed").value = numberOf("seed") + PRIOR_COLUMNS * PRIOR_ROWS;
    draw();
  });

  // Row by row, so that it is seen to come. z_1 rises to the right, z_2 upwards.
  let grids = 0;
  const drawGrid = action(async () => {
    const mine = ++grids;
    const points = numberOf("grid-points");
    const { values } = await get(`axis?points=${points}&spacing=${byId("spacing").value}`);
    const canvas = byId("grid");
    // Of one plane and place, whatever is chosen meanwhile; about the prior's.
    const { plane, z: here } = state, { flat } = view, [u0, v0] = plane.middle_of_prior;
    clearSheet(canvas, state.model.image_shape, points, flat ? 1 : points);
    for (const [row, v] of (flat ? [0] : [...values].reverse()).entries()) {
      const found = await shown(values.map((u) => moved(plane, here, [u0 + u, v0 + v])));
      if (mine !== grids) return; // another was asked for
      found.forEach((image, column) => paintOnSheet(canvas, image, column, row));
    }
    canvas.dispatchEvent(new CustomEvent("shown"));
  });
  byId("draw-grid").addEventListener("click", drawGrid);
  byId("save-grid").addEventListener("click", () => saveCanvas("grid.png", byId("grid")));
  return {
    start() {
      go();
      draw();
    },
  };
}
