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

  // `known`: its posterior, where that has been asked for. Of two that are
  // chosen one after the other, the second stays.
  let chosen = 0;
  async function choose(image, label, known = null) {
    if (!has("encode")) throw new Error(words.said("no_encoder"));
    const mine = ++chosen;
    const encoded = known ?? await predict("encode", { image: [image] }, { quiet: true });
    const [mean, stddev] = [encoded.mean[0], encoded.stddev[0]];
    if (mean.includes(null)) throw new Error("A pixel of this image is outside [0, 1].");
    const reconstruction = await predict("reconstruct", { image: [image] }, { quiet: true });
    const asked = { image: [image], seed: [state.seed] };
    const terms = await predict(has("explain") ? "explain" : "score", asked);
    const one = { image, label, mean, stddev, terms, reconstruction: reconstruction.image[0] };
    if (has("encode_sample")) {
      const size = state.model.image_shape.reduce((a, b) => a * b);
      const rows = Math.max(DECODED, Math.min(DRAWS, Math.floor(MAX_NUMBERS / size)));
      const many = Array.from({ length: rows }, () => image);
      const seed = many.map((_, i) => state.seed + i);
      one.draws = (await predict("encode_sample", { image: many, seed }, { quiet: true })).z;
      const z = one.draws.slice(0, DECODED);
      one.decoded = (await predict("decode", { z }, { quiet: true })).image;
    }
    if (mine !== chosen) return;
    found = one;
    show();
    goTo(found.mean, { quiet: true }); // what was asked is the image's
  }

  const has = (signature) => state.model.signatures.includes(signature);

  // Whether q(z|x) is a Gaussian of independent dimensions, which an ellipse
  // tells. A server does not say; KL by dimension is there for those alone.
  const isMeanField = () => state.model.posterior
    ? state.model.posterior === "mean_field"
    : state.model.per_dimension_name.startsWith("KL");

  function mark() {
    if (!found || !state.plane) return;
    const variances = found.stddev.map((value) => value ** 2);
    view.setMarks({
      draws: found.draws?.map((z) => project(state.plane, z)),
      ellipse: isMeanField() && !view.flat
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
    const isWhole = nats && !nats[0].flat(2).includes(null);
    byId("chosen-map").hidden = !isWhole;
    if (isWhole) {
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
      const draws = state.model.num_importance_samples;
      if (key === "best_loss" && draws) head.append(` (K = ${draws})`);
      row.append(head);
      row.insertCell().textContent = value === null ? "none" : `${(factor * value).toFixed(2)} nats`;
    }
    words.translate(body);
    const told = terms.kl_per_dimension?.[0];
    const order = told && [...told.keys()].sort((a, b) => told[b] - told[a]).slice(0, 5);
    const impossible = terms.elbo[0] === null ? `${words.said("impossible")} ` : "";
    byId("terms-about").textContent = impossible + (order
      ? `By dimension: ${order.map((d) => `z${d + 1} ${told[d].toFixed(2)}`).join(", ")} nats.`
      : "");
  }

  return { chooseHeldOut, choose, translate, isMeanField };
}
