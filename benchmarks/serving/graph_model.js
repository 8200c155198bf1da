// What a converted model answers in TensorFlow.js:
// node graph_model.js DIRECTORY, with model.json, its weights and inputs.json.
const fs = require("fs");
const path = require("path");
const tf = require("@tensorflow/tfjs");

async function main(directory) {
  const read = (name) => fs.readFileSync(path.join(directory, name));
  const model = JSON.parse(read("model.json"));
  const groups = model.weightsManifest;
  const weights = Buffer.concat(groups.flatMap((g) => g.paths).map(read));
  const graph = await tf.loadGraphModel({
    load: async () => ({
      ...model,
      weightSpecs: groups.flatMap((group) => group.weights),
      weightData: new Uint8Array(weights).buffer,
    }),
  });
  const inputs = Object.fromEntries(
    Object.entries(JSON.parse(read("inputs.json"))).map(([name, one]) => [
      name,
      tf.tensor(one.data, one.shape, "float32"),
    ]),
  );
  const names = graph.outputs.map((output) => output.name).sort();
  const outputs = [await graph.executeAsync(inputs, names)].flat();
  const answer = outputs.map((one) => ({
    data: Array.from(one.dataSync()),
    shape: one.shape,
  }));
  console.log(JSON.stringify(answer));
}

main(process.argv[2]).catch((error) => {
  console.error(String(error));
  process.exit(1);
});
