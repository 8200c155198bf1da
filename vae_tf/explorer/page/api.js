// What the page asks of the server behind it. A prediction goes as it would to
// TensorFlow Serving, and is shown so.
import { show } from "./asked.js";

async function answered(response) {
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({ error: response.statusText }));
    throw new Error(error);
  }
  return response;
}

export async function get(path) {
  return (await answered(await fetch(path))).json();
}

export async function post(path, body) {
  return answered(await fetch(path, { method: "POST", body: JSON.stringify(body) }));
}

// The outputs of a signature, by name: rows each.
export async function predict(signature, inputs, { quiet = false, passing = false } = {}) {
  const body = { signature_name: signature, inputs };
  if (!quiet) show(body, passing); // now: replies may come when others count
  const response = await post("v1/models/vae:predict", body);
  const { outputs } = await response.json();
  // One output comes without its name.
  return Array.isArray(outputs) ? { image: outputs, z: outputs } : outputs;
}
