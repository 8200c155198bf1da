// An image of one's own, drawn or from a file: it goes to the model as a file,
// which fits and converts it as in training.
import { predict } from "./api.js";
import { show } from "./asked.js";
import * as words from "./words.js";

const SIDE = 280; // pixels of the longer side of a drawing
const byId = (id) => document.getElementById(id);

export function wireDrawing({ state, action, chosen }) {
  const canvas = byId("drawing");
  const [height, width, channels] = state.model.image_shape;
  const scale = SIDE / Math.max(height, width);
  Object.assign(canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
  const context = canvas.getContext("2d");
  byId("ink").parentElement.hidden = channels < 3;
  if (!state.model.signatures.includes("encode_bytes")) {
    byId("own").hidden = true;
    byId("own-about").append(words.spoken("no_files"));
    words.translate(byId("own-about"));
    return;
  }
  byId("own-about").append("Draw with pointer or finger, or drop a file on the page. ", words.spoken("own"));
  words.translate(byId("own-about"));
  clear();

  function clear() {
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }

  const ask = action(async (file) => {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const b64 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    const asked = { image_bytes: [{ b64 }], seed: [state.seed] };
    const mine = ++files;
    const encoded = await predict("encode_bytes", asked, { quiet: true });
    if (mine !== files) return; // another came
    if (!encoded.valid[0]) throw new Error("That is no image that the model can read: expected PNG or JPEG.");
    await chosen.choose(encoded.image[0], "", encoded);
    // What gives the same ELBO without this page.
    show({ signature_name: "score_bytes", inputs: asked });
  });

  let from = null, changed = false, busy = false, files = 0;
  // While the stroke goes on, as often as there are answers.
  async function drawn() {
    changed = true;
    if (busy) return;
    busy = true;
    while (changed) {
      changed = false;
      await ask(await new Promise((done) => canvas.toBlob(done)));
    }
    busy = false;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
  }

  function stroke(to) {
    context.strokeStyle = context.fillStyle = byId("ink").value;
    context.lineWidth = byId("brush").value * SIDE / 50;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    from = to;
    drawn();
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    from = point(event);
    stroke(from.map((value) => value + 0.1));
  });
  canvas.addEventListener("pointermove", (event) => from && stroke(point(event)));
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { from = null; });
  byId("clear").addEventListener("click", clear);

  async function opened(file) {
    if (!file) return;
    const picture = await createImageBitmap(file).catch(() => null);
    if (picture) {
      // Its largest centred part, and white where it is transparent, as the
      // model takes it.
      context.fillStyle = "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
      const fit = Math.max(canvas.width / picture.width, canvas.height / picture.height);
      const [w, h] = [picture.width * fit, picture.height * fit];
      context.drawImage(picture, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
    }
    await ask(file);
  }
  byId("file").addEventListener("change", (event) => {
    opened(event.target.files[0]);
    event.target.value = ""; // the same again is another
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      canvas.classList.toggle("over", name === "dragover");
      if (name === "drop") opened(event.dataTransfer.files[0]);
    });
  }
}
