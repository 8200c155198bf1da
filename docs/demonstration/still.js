// Stands in for the explorer's server where there is none. What it would be
// asked for was fetched when the site was built (answers.json); what depends on
// the pointer is computed here by the weights of the one model: MLPs of relu, a
// mean-field posterior, a standard-normal prior, a Bernoulli likelihood.
(() => {
  const fetched = window.fetch.bind(window);
  const known = fetched("answers.json").then((response) => response.json());
  const DRAWS = 64; // of log p(x)

  // Networks.

  const dense = (x, { kernel, bias }) => {
    const y = [...bias];
    x.forEach((value, i) => {
      if (value) kernel[i].forEach((weight, j) => { y[j] += value * weight; });
    });
    return y;
  };
  const mlp = (x, layers) => layers.reduce(
    (h, layer, i) => dense(i ? h.map((value) => Math.max(0, value)) : h, layer), x);
  const softplus = (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));
  const sigmoid = (v) => 1 / (1 + Math.exp(-v));

  // q(z|x): as vae_tf.MeanField has it.
  function posterior(image, { encoder }) {
    const parameters = mlp(image.flat(2), encoder), size = parameters.length / 2;
    return {
      mean: parameters.slice(0, size),
      stddev: parameters.slice(size).map((raw) => 1e-4 + softplus(raw + 0.5413249)),
    };
  }
  const logits = (z, { decoder }) => mlp(z, decoder);

  function shaped(pixels, [height, width, channels]) {
    let place = 0;
    return Array.from({ length: height }, () => Array.from({ length: width },
      () => Array.from({ length: channels }, () => pixels[place++])));
  }

  // Draws: a function of the seed (and not those of the server).

  function generator(seed) {
    let state = (seed * 2654435761 + 12345) >>> 0;
    const uniform = () => { // mulberry32
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { uniform, normal };
  }
  const drawn = ({ mean, stddev }, { normal }) => mean.map((loc, d) => loc + stddev[d] * normal());
  const bits = (means, { uniform }) => means.map((p) => (uniform() < p ? 1 : 0));

  // log p(x, z) - log q(z|x) of draws, and what the ELBO is made of.
  function explained(image, seed, weights) {
    const q = posterior(image, weights), x = image.flat(2), noise = generator(seed);
    const perPixel = x.map(() => 0), logWeights = [];
    for (let draw = 0; draw < DRAWS; draw++) {
      const z = drawn(q, noise);
      let log = 0;
      logits(z, weights).forEach((logit, i) => {
        const told = x[i] * logit - softplus(logit);
        perPixel[i] += told / DRAWS;
        log += told;
      });
      z.forEach((value, d) => {
        const standard = (value - q.mean[d]) / q.stddev[d];
        log += (standard ** 2 - value ** 2) / 2 + Math.log(q.stddev[d]);
      });
      logWeights.push(log);
    }
    const kl = q.mean.map((loc, d) => (loc ** 2 + q.stddev[d] ** 2 - 1) / 2 - Math.log(q.stddev[d]));
    const most = Math.max(...logWeights), sum = (values) => values.reduce((a, b) => a + b, 0);
    return {
      perPixel, kl,
      reconstruction: sum(perPixel),
      evidence: most + Math.log(sum(logWeights.map((log) => Math.exp(log - most))) / DRAWS),
    };
  }

  const SIGNATURES = {
    decode: ({ z }, { weights, shape }) => ({
      image: z.map((one) => shaped(logits(one, weights).map(sigmoid), shape)),
    }),
    decode_sample: ({ z, seed }, { weights, shape }) => ({
      image: z.map((one, i) => shaped(bits(logits(one, weights).map(sigmoid), generator(seed[i])), shape)),
    }),
    encode: ({ image }, { weights }) => {
      const found = image.map((one) => posterior(one, weights));
      return { mean: found.map((q) => q.mean), stddev: found.map((q) => q.stddev) };
    },
    encode_sample: ({ image, seed }, { weights }) => ({
      z: image.map((one, i) => drawn(posterior(one, weights), generator(seed[i]))),
    }),
    reconstruct: ({ image }, { weights, shape }) => ({
      image: image.map((one) => shaped(logits(posterior(one, weights).mean, weights).map(sigmoid), shape)),
    }),
    sample: ({ seed }, { weights, shape, latent }) => {
      const rows = seed.map((one) => {
        const noise = generator(one), z = Array.from({ length: latent }, noise.normal);
        const means = logits(z, weights).map(sigmoid);
        return { z, mean: shaped(means, shape), image: shaped(bits(means, noise), shape) };
      });
      return { z: rows.map((r) => r.z), mean: rows.map((r) => r.mean), image: rows.map((r) => r.image) };
    },
    explain: ({ image, seed }, { weights, shape }) => {
      const found = image.map((one, i) => explained(one, seed[i], weights));
      const kl = found.map((one) => one.kl.reduce((a, b) => a + b));
      return {
        reconstruction: found.map((one) => one.reconstruction),
        kl,
        elbo: found.map((one, i) => one.reconstruction - kl[i]),
        log_marginal_likelihood: found.map((one) => one.evidence),
        reconstruction_per_pixel: found.map((one) => shaped(one.perPixel, shape)),
        kl_per_dimension: found.map((one) => one.kl),
      };
    },
  };

  // As vae_tf.interpolations goes.
  function way({ start, stop, points, path }) {
    const lengths = [start, stop].map((z) => Math.hypot(...z)), product = lengths[0] * lengths[1];
    const dot = start.reduce((sum, value, d) => sum + value * stop[d], 0);
    const angle = Math.acos(Math.max(-1, Math.min(1, product > 0 ? dot / product : 1)));
    const isStraight = path === "linear" || Math.sin(angle) < 1e-4;
    return Array.from({ length: points }, (_, i) => {
      const t = i / (points - 1);
      if (isStraight) return start.map((value, d) => (1 - t) * value + t * stop[d]);
      const length = ((1 - t) * lengths[0] + t * lengths[1]) / Math.sin(angle);
      const [a, b] = [Math.sin((1 - t) * angle) / lengths[0], Math.sin(t * angle) / lengths[1]];
      return start.map((value, d) => length * (a * value + b * stop[d]));
    });
  }

  async function answered(path, body) {
    const answers = await known;
    if (path === "way") return { z: way(body) };
    if (path.endsWith(":predict")) {
      const { image_shape: shape, latent_dim: latent } = answers.model;
      const outputs = SIGNATURES[body.signature_name](body.inputs, { weights: answers.weights, shape, latent });
      return { outputs };
    }
    if (path in answers) return answers[path];
    throw new Error("This page has no server behind it: `make explore` has one.");
  }

  window.fetch = async (path, { body } = {}) => {
    if (path === "words.json") return fetched(path);
    try {
      return new Response(JSON.stringify(await answered(path, body && JSON.parse(body))));
    } catch (error) {
      return new Response(JSON.stringify({ error: error.message }), { status: 404 });
    }
  };
})();
