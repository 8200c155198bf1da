// What was asked: the curl line and the Python lines that would ask the same of
// TensorFlow Serving.
const MAX_LINE = 60000; // characters: a shell takes no more than 128 KiB
const PAUSE = 80; // milliseconds
const place = { url: "http://127.0.0.1:8501", model: "vae" };
let last = null, action = null, waiting = false;

// Where the model is: `url`, `model`, and where they are named `version`,
// `label` and `authorization`.
export function setPlace(given) {
  Object.assign(place, given, { url: given.url.replace(/\/+$/, "") });
}

// Back to the last action, from what was asked in passing.
export function restore() {
  if (action) show(action);
}

// Now and then: the pointer asks faster than anybody reads.
export function show(body, passing = false) {
  last = body;
  if (!passing) action = body;
  if (waiting) return;
  waiting = true;
  setTimeout(() => {
    waiting = false;
    write(last);
  }, PAUSE);
}

function write(body) {
  const text = JSON.stringify(body);
  const asFile = text.length > MAX_LINE;
  // Of a server that is asked over gRPC, REST is at another port: as a rule 8501.
  const http = place.url.replace(/^grpc(s?):(.*?)(:\d+)?$/, "http$1:$2:8501");
  const { version, label } = place;
  const pin = version != null ? `/versions/${version}` : label != null ? `/labels/${encodeURIComponent(label)}` : "";
  const url = `${http}/v1/models/${encodeURIComponent(place.model)}${pin}:predict`;
  document.getElementById("curl").textContent = ["curl", "-s", ...CREDENTIALS[place.authorization] ?? [],
    quoted(url), "-d", asFile ? "@request.json" : quoted(text)].join(" ");
  document.getElementById("python").textContent = python(body, asFile);
  const request = document.getElementById("request");
  request.hidden = !asFile;
  if (asFile) {
    const link = document.getElementById("request-file");
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  }
}

// As a word of the shell.
const quoted = (text) => (/^[\w.:/@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const CREDENTIALS = {
  basic: ["-u", '"$USER_AND_PASSWORD"'],
  bearer: ["-H", '"Authorization: Bearer $TOKEN"'],
};

function python(body, asFile) {
  const signature = body.signature_name;
  const hasFiles = "image_bytes" in body.inputs;
  const imports = [place.authorization && "import os", asFile && "import json", hasFiles && "import base64"];
  // What is secret is in the environment of who copies the lines.
  const given = [place.authorization === "basic" ? 'os.environ["URL"]' : JSON.stringify(place.url),
    `model=${JSON.stringify(place.model)}`];
  if (place.version != null) given.push(`version=${place.version}`);
  if (place.label != null) given.push(`label=${JSON.stringify(place.label)}`);
  if (place.authorization === "bearer") given.push('token=os.environ["TOKEN"]');
  const client = `client = Client(${given.join(", ")})`;
  const lines = [...imports, "from vae_tf.serving.client import Client", "", client];
  if (asFile) {
    lines.push('inputs = json.load(open("request.json"))["inputs"]');
    if (hasFiles) {
      lines.push('files = inputs["image_bytes"]',
        'inputs["image_bytes"] = [base64.b64decode(f["b64"]) for f in files]');
    }
    lines.push(`print(client.predict("${signature}", **inputs))`);
  } else {
    const inputs = Object.entries(body.inputs).map(([name, rows]) => {
      const value = name === "image_bytes"
        ? `[${rows.map((row) => `base64.b64decode("${row.b64}")`).join(", ")}]`
        : JSON.stringify(rows);
      return `${name}=${value}`;
    });
    lines.push(`print(client.predict("${signature}", ${inputs.join(", ")}))`);
  }
  return lines.filter((line) => line !== false).join("\n");
}

export function wireCopies(onFailure) {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch (error) {
        onFailure(error);
        return;
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1200);
    });
  }
}
