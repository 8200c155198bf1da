// What is chosen on the page, and what follows from it.
import { get, predict } from "./api.js";
import { restore, setPlace, wireCopies } from "./asked.js";
import { wireChosen } from "./chosen.js";
import { wireDrawing } from "./drawing.js";
import { paint } from "./picture.js";
import { colourOf, Plane } from "./plane.js";
import { moved, project } from "./space.js";
import { wireWays } from "./ways.js";
import * as words from "./words.js";

const byId = (id) => document.getElementById(id);
const chosenOf = (name) => document.querySelector(`[name=${name}]:checked`).value;

// `z` is where we are, `stay` where we go back to from where a mouse only passed;
// `plane` is what is shown of the space they are in.
const state = { model: null, plane: null, z: null, stay: null, seed: 0 };

function fail(error) {
  byId("failure").hidden = !error;
  byId("failure").textContent = error ? `${error.message ?? error}` : "";
}

// An action of the user's: what fails is said.
export function action(act) {
  return async (...given) => {
    try {
      fail(null);
      return await act(...given);
    } catch (error) {
      fail(error);
    }
  };
}

// The newest place is decoded; those that were passed meanwhile are not.
let busy = false, asked = null;
async function decode(options = {}) {
  asked = options;
  if (busy) return;
  busy = true;
  try {
    while (asked) {
      const given = asked, z = state.z;
      asked = null;
      const image = given.image ?? (await shown([z], given))[0];
      paint(byId("walk"), image);
      byId("walk").dispatchEvent(new CustomEvent("shown", { detail: { z, image } }));
    }
  } catch (error) {
    fail(error);
  } finally {
    busy = false;
  }
}

// z [N][D] -> images, the mean of p(x|z) or a draw.
async function shown(z, options) {
  const draw = chosenOf("shows") === "draw";
  const { image } = draw
    ? await predict("decode_sample", { z, seed: z.map((_, i) => state.seed + i) }, options)
    : await predict("decode", { z }, options);
  return image;
}

function go(z, options) {
  state.z = z;
  if (!options?.passing) state.stay = z;
  const names = z.length > 2 ? "|z|" : "z";
  const told = z.length > 2 ? Math.hypot(...z).toFixed(2) : `(${z.map((v) => v.toFixed(2)).join(", ")})`;
  byId("z").textContent = `${names} = ${told}`;
  for (const slider of byId("sliders").querySelectorAll("input")) {
    slider.value = z[slider.dataset.dimension];
    slider.nextElementSibling.value = z[slider.dataset.dimension].toFixed(2);
  }
  decode(options);
}

// To a z that need not lie in the plane: the cross goes where it is seen.
function goTo(z, options) {
  view.at = project(state.plane, z);
  view.place();
  go(z, options);
}

const view = new Plane(byId("plane"), {
  onMove: (at, stays) => go(moved(state.plane, state.z, at), { passing: !stays }),
  onLeave: () => {
    goTo(state.stay, { quiet: true });
    restore();
  },
  onChoose: action((index) => chosen.chooseHeldOut(index)),
});

async function showPlane() {
  const kind = byId("planes").value;
  byId("two-dimensions").hidden = kind !== "dimensions";
  const query = kind === "dimensions" ? `?x=${byId("x").value}&y=${byId("y").value}` : "";
  const mine = ++planesAsked;
  const plane = await get(`plane${query}`);
  if (mine !== planesAsked) return; // another was asked for
  state.plane = plane;
  view.set(state.plane, state.model.classes ?? [], state.model.prior === "standard_normal");
  for (const listener of planeListeners) listener();
  goTo(state.z);
  legend();
}
const planeListeners = [];
let planesAsked = 0;

function legend() {
  const { model } = state;
  const hasEncoder = model.signatures.includes("encode");
  const parts = [model.are_held_out ? "held_out" : hasEncoder ? "own_draws" : "legend_points_of_prior"];
  if (hasEncoder && !view.flat) parts.push("legend_contours");
  if (model.prior !== "standard_normal") parts.push("legend_prior");
  else if (!view.flat) parts.push("legend_circles");
  parts.push("legend_new");
  if (hasEncoder) parts.push(chosen.isMeanField() && !view.flat ? "legend_ellipse" : "legend_dots");
  const place = byId("legend");
  place.replaceChildren();
  for (const [i, name] of (model.classes ?? []).entries()) {
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = colourOf(i);
    place.append(swatch, `${name}`);
  }
  if (model.classes) place.append(document.createElement("br"));
  for (const part of parts) place.append(words.spoken(part), part === parts.at(-1) ? "." : "; ");
  words.translate(place);
}

function options(select, named, value) {
  select.replaceChildren(...named.map(([key, text]) => new Option(text, key)));
  select.value = value;
}

function wirePlanes() {
  const { latent_dim: D, per_dimension: told } = state.model;
  const order = [...told.keys()].sort((a, b) => told[b] - told[a]);
  const named = order.map((d) => [d, `z${d + 1}`]);
  options(byId("planes"), [["principal", "principal"], ["dimensions", "two dimensions"]],
    D > 2 ? "principal" : "dimensions");
  options(byId("x"), named, D > 2 ? order[0] : 0);
  options(byId("y"), named, D > 2 ? order[1] : Math.min(1, D - 1));
  byId("choose-plane").hidden = D < 2;
  for (const id of ["planes", "x", "y"]) {
    byId(id).addEventListener("change", action(() => {
      if (byId("x").value === byId("y").value) {
        byId(id === "x" ? "y" : "x").value = named.find(([d]) => `${d}` !== byId(id).value)[0];
      }
      return showPlane();
    }));
  }
  byId("dimensions-about").dataset.word = state.model.per_dimension_name.startsWith("KL")
    ? "dimensions_kl" : "dimensions_variance";
  words.translate();
  for (const d of order) byId("sliders").append(slider(d, told[d], Math.max(...told)));
  byId("dimensions").open = D > 2 && innerWidth > 832;
}

function slider(dimension, told, most) {
  const item = document.createElement("li");
  item.innerHTML = `<label><span>z${dimension + 1}</span>
    <input type="range" min="-4" max="4" step="0.01" data-dimension="${dimension}"><output></output>
    <meter min="0" max="${most || 1}" value="${told}" title="${told.toFixed(3)}" aria-label="what it tells"></meter></label>`;
  item.querySelector("input").addEventListener("input", (event) => {
    goTo(state.z.map((value, i) => (i === dimension ? Number(event.target.value) : value)));
  });
  return item;
}

function facts() {
  const { model } = state;
  byId("source").textContent = model.source;
  document.title = `${model.source} - vae_tf explorer`;
  const parts = [`D = ${model.latent_dim}`, `${model.image_shape.join(" x ")} pixels`];
  for (const name of ["likelihood", "posterior", "prior"]) {
    // The families' own names say which language they are of.
    if (model[name]) parts.push(model[name].replaceAll("_", " "));
  }
  byId("facts").textContent = `${parts.join(", ")}.`;
}

const chosen = wireChosen({ state, view, goTo, action, planeListeners });

async function start() {
  state.model = await get("model");
  const { url, model, version, label, authorization } = state.model;
  setPlace({ url, model, version, label, authorization });
  state.z = state.stay = [...state.model.middle];
  await words.load(() => chosen.translate());
  facts();
  wirePlanes();
  const has = (signature) => state.model.signatures.includes(signature);
  document.querySelector("[name=shows][value=draw]").disabled = !has("decode_sample");
  document.querySelector("[name=points][value=samples]").disabled = !has("encode_sample");
  byId("shows").addEventListener("change", () => decode());
  byId("points").addEventListener("change", () => {
    view.kind = chosenOf("points");
    view.resize();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", legend);
  wireCopies(fail);
  const ways = wireWays({ state, view, goTo, shown, action, planeListeners });
  wireDrawing({ state, action, chosen });
  await showPlane();
  ways.start();
  document.body.dataset.ready = "";
}

action(start)();
