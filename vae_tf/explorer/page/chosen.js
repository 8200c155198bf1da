// One image: its reconstruction, where its nats go, and where q(z|x) puts it.
import { get, predict } from "./api.js";
import { paint, paintNats, paintSheet } from "./picture.js";
import { covariance, project } from "./space.js";
import * as words from "./words.js";

const DRAWS = 64; // of q(z|x), on the plane; fewer of large images
const DECODED = 8; // of them, as images
const MAX_NUMBERS = 400000; // of a request

const byId = (id) => document.getElementById(id);

export function wireChosen({ state, view, goTo, action, planeListeners }) {
  let found = null;
  planeListeners.push(mark);
  byId("chosen-image").addEventListener("click", () => found && goTo(found.mean));

  async function chooseHeldOut(index) {
    const { image, label } = await get(`image/${index}`);
    await choose(image, label === null ? "" : `(${label})`);
  }

  // `known`: its posterior, where that has been asked for.
  async function choose(image, label, known = null) {
    if (!has("encode")) throw new Error(words.said("no_encoder"));
    const encoded = known ?? await predict("encode", { image: [image] }, { quiet: true });
    const reconstruction = await predict("reconstruct", { image: [image] }, { quiet: true });
    const asked = { image: [image], seed: [state.seed] };
    const terms = await predict(has("explain") ? "explain" : "score", asked);
    found = { image, label, mean: encoded.mean[0], stddev: encoded.stddev[0], terms,
      reconstruction: reconstruction.image[0], draws: null };
    if (found.mean.includes(null)) throw new Error("A pixel of this image is outside [0, 1].");
    if (has("encode_sample")) {
      const size = state.model.image_shape.reduce((a, b) => a * b);
      const rows = Math.max(DECODED, Math.min(DRAWS, Math.floor(MAX_NUMBERS / size)));
      const many = Array.from({ length: rows }, () => image);
      const seed = many.map((_, i) => state.seed + i);
      found.draws = (await predict("encode_sample", { image: many, seed }, { quiet: true })).z;
      const z = found.draws.slice(0, DECODED);
      found.decoded = (await predict("decode", { z }, { quiet: true })).image;
    }
    show();
    goTo(found.mean, { quiet: true }); // what was asked is the image's
  }

  const has = (signature) => state.model.signatures.includes(signature);

  // Its ellipse is where q(z|x) is a Gaussian of independent dimensions.
  function mark() {
    if (!found) return;
    const variances = found.stddev.map((value) => value ** 2);
    const isMeanField = (state.model.posterior ?? "mean_field") === "mean_field";
    view.setMarks({
      draws: found.draws?.map((z) => project(state.plane, z)),
      ellipse: isMeanField && !view.flat
        ? { mean: project(state.plane, found.mean), covariance: covariance(state.plane, variances) }
        : null,
    });
  }

  function show() {
    byId("chosen-none").hidden = true;
    byId("chosen").hidden = false;
    paint(byId("chosen-image"), found.image);
    paint(byId("chosen-reconstruction"), found.reconstruction);
    byId("chosen-label").textContent = found.label;
    const nats = found.terms.reconstruction_per_pixel;
    byId("chosen-map").hidden = !nats;
    if (nats) {
      const [least, most] = paintNats(byId("chosen-pixels"), nats[0]);
      byId("pixels-range").textContent = `(black ${least.toFixed(2)}, white ${most.toFixed(2)})`;
    }
    byId("draws-of").hidden = !found.decoded;
    if (found.decoded) paintSheet(byId("posterior-draws"), found.decoded, DECODED);
    mark();
    translate();
    byId("chosen").dispatchEvent(new CustomEvent("shown", { detail: found }));
  }

  // A loss is minus what probability speaks of.
  function translate() {
    if (!found) return;
    const sign = words.isProbability() ? 1 : -1;
    const { terms } = found;
    const rows = [
      ["reconstruction_loss", sign, terms.reconstruction],
      ["regulariser", 1, terms.kl],
      ["loss", sign, terms.elbo],
      ["best_loss", sign, terms.log_marginal_likelihood],
    ];
    const body = byId("terms");
    body.replaceChildren();
    for (const [key, factor, [value]] of rows) {
      const row = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.append(words.spoken(key));
      row.append(head);
      row.insertCell().textContent = value === null ? "none" : `${(factor * value).toFixed(2)} nats`;
    }
    words.translate(body);
    const told = terms.kl_per_dimension?.[0];
    const order = told && [...told.keys()].sort((a, b) => told[b] - told[a]).slice(0, 5);
    const impossible = terms.elbo[0] === null ? "The model gives an image with such pixels no probability. " : "";
    byId("terms-about").textContent = impossible + (order
      ? `By dimension: ${order.map((d) => `z${d + 1} ${told[d].toFixed(2)}`).join(", ")} nats.`
      : "");
  }

  return { chooseHeldOut, choose, translate };
}
