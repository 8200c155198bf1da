"""The explorer's page without a server, as the site's first page has it: what a
browser computes by still.js is what the model gives."""

import contextlib
import functools
import http.server
import pathlib
import sys
import tempfile
import threading

import numpy as np
import pytest
import tensorflow as tf
from browser import browser
from small import random_bits, small_vae

import vae_tf
from vae_tf.pictures.latent_points import interpolation

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PREDICT = """async ([signature_name, inputs]) => (await (await fetch(
  "v1/models/vae:predict",
  {method: "POST", body: JSON.stringify({signature_name, inputs})})
).json()).outputs"""


@pytest.mark.slow
class DemonstrationTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sys.path.insert(0, str(DOCS))
        cls.addClassCleanup(sys.path.remove, str(DOCS))
        from demonstration.still import write

        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        chromium = stack.enter_context(browser())
        cls.vae = small_vae()
        cls.images = random_bits(30)
        place = stack.enter_context(tempfile.TemporaryDirectory())
        write(cls.vae, cls.images, np.arange(30) % 3, place)
        handler = functools.partial(Quiet, directory=place)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever).start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)
        cls.tab = chromium.new_page()
        cls.errors = []
        cls.tab.on("pageerror", lambda error: cls.errors.append(error))
        cls.tab.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
        cls.tab.wait_for_selector("body[data-ready]")

    def predict(self, signature, **inputs):
        inputs = {key: np.asarray(x).tolist() for key, x in inputs.items()}
        return {
            key: np.array(x)
            for key, x in self.tab.evaluate(
                PREDICT, [signature, inputs]
            ).items()
        }

    def test_the_page_is_there_and_nothing_failed(self):
        self.assertFalse(self.errors)
        self.assertTrue(self.tab.locator("#failure").is_hidden())

    def test_networks_agree(self):
        z = np.random.default_rng(0).standard_normal((5, 2))
        found = self.predict("decode", z=z)["image"]
        expected = self.vae.decoder(z.astype(np.float32)).mean()
        self.assertAllClose(found, expected, atol=1e-4)
        posterior = self.vae.encoder(self.images)
        found = self.predict("encode", image=self.images)
        self.assertAllClose(found["mean"], posterior.mean(), atol=1e-4)
        self.assertAllClose(found["stddev"], posterior.stddev(), atol=1e-4)
        found = self.predict("reconstruct", image=self.images)["image"]
        expected = self.vae.reconstruct(self.images)
        self.assertAllClose(found, expected, atol=1e-4)

    def test_an_image_is_taken_apart(self):
        seeds = np.arange(30)
        found = self.predict("explain", image=self.images, seed=seeds)
        kl = self.vae.encoder(self.images).kl_divergence(
            self.vae.prior_distribution()
        )
        self.assertAllClose(found["kl"], kl, atol=1e-3)
        self.assertAllClose(
            found["elbo"], found["reconstruction"] - found["kl"]
        )
        self.assertAllClose(
            found["reconstruction_per_pixel"].sum((1, 2, 3)),
            found["reconstruction"],
        )
        self.assertAllClose(found["kl_per_dimension"].sum(1), found["kl"])
        # Averages over 30 images of estimates by 64 draws each.
        exact = vae_tf.log_marginal_likelihood(
            self.vae, self.images, num_samples=5000, seed=0
        )
        elbo = self.vae.elbo(self.images, seed=0, num_samples=5000)
        evidence = found["log_marginal_likelihood"]
        self.assertAllClose(evidence.mean(), np.mean(exact), atol=0.05)
        self.assertAllClose(found["elbo"].mean(), np.mean(elbo), atol=0.1)
        self.assertTrue(np.all(evidence >= found["elbo"]))  # Jensen

    def test_draws_have_the_moments_of_their_distributions(self):
        count = 4000
        image = np.repeat(self.images[:1], count, axis=0)
        seeds = np.arange(count)
        z = self.predict("encode_sample", image=image, seed=seeds)["z"]
        posterior = self.vae.encoder(self.images[:1])
        error = posterior.stddev()[0] / np.sqrt(count)
        self.assertAllLess(np.abs(z.mean(0) - posterior.mean()[0]) / error, 4)
        self.assertAllClose(z.std(0), posterior.stddev()[0], rtol=0.05)
        found = self.predict("sample", seed=seeds)
        self.assertAllLess(np.abs(found["z"].mean(0)) * np.sqrt(count), 4)
        self.assertAllClose(found["z"].std(0), np.ones(2), rtol=0.05)
        self.assertAllClose(
            found["image"].mean(0), found["mean"].mean(0), atol=0.04
        )

    def test_ways_are_those_of_the_package(self):
        for path in ("linear", "spherical"):
            given = {
                "start": [1.0, 0.5],
                "stop": [-0.5, 2.0],
                "points": 7,
                "path": path,
            }
            found = self.tab.evaluate(
                "async (given) => (await (await fetch('way', "
                "{method: 'POST', body: JSON.stringify(given)})).json()).z",
                given,
            )
            expected = interpolation(
                np.array(given["start"]), np.array(given["stop"]), 7, path
            )
            self.assertAllClose(found, expected, atol=1e-6)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


if __name__ == "__main__":
    tf.test.main()
