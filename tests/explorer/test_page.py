"""The page in a real browser, over a bundle here and over a server."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
import uvicorn
from browser import browser
from endpoints import Exported
from model_server import DOUBLE, serving
from PIL import Image
from small import random_bits, small_vae

from vae_tf.explorer import server as rooms
from vae_tf.explorer.survey import survey
from vae_tf.serving.client import Client

ROOT = pathlib.Path(__file__).parents[2]
# What is said in one language alone.
NETWORK = ("encoder", "decoder", "code", "loss", "regulariser", "autoencoder")
PROBABILITY = ("ELBO", "KL", "p(", "q(", "latent", "prior", "posterior")
# The values that a sheet of the canvas `#id` shows, in [0, 1].
PIXELS = """id => {
  const canvas = document.getElementById(id);
  const {data} = canvas.getContext("2d").getImageData(
    0, 0, canvas.width, canvas.height);
  return [canvas.height, canvas.width, Array.from(data)];
}"""


@contextlib.contextmanager
def shown(client, held, about, chromium, fails=False):
    """A page of the explorer, ready."""
    seen = survey(client, *held)
    application = rooms.Explorer(client, seen, about).application()
    config = uvicorn.Config(application, port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            pass
        port = server.servers[0].sockets[0].getsockname()[1]
        tab = chromium.new_context().new_page()
        errors = []
        tab.on("pageerror", lambda error: errors.append(error))
        tab.goto(f"http://127.0.0.1:{port}/")
        tab.wait_for_selector("body[data-ready]")
        yield tab
        assert not errors, errors
        assert fails or tab.locator("#failure").is_hidden(), "it failed"
        tab.close()
    finally:
        server.should_exit = True
        thread.join()


class PageTest(Exported):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.chromium = stack.enter_context(browser())
        cls.client = cls.export(small_vae())
        cls.export_dir = cls.client.export_dir
        cls.held = random_bits(40), np.arange(40) % 10

    @contextlib.contextmanager
    def page(self, client=None, fails=False, **about):
        about = {
            "source": "runs/x",
            "url": "http://127.0.0.1:8501",
            "model": "vae",
            "prior": "standard_normal",
            "posterior": "mean_field",
        } | about
        with shown(
            client or self.client, self.held, about, self.chromium, fails
        ) as tab:
            yield tab

    def listen(self, tab, name):
        """Keeps what `#name` says that it shows as `window.name`."""
        tab.evaluate(
            """name => {
              window[name] = null;
              document.getElementById(name).addEventListener(
                "shown", event => { window[name] = event.detail; });
            }""",
            name,
        )

    def pixels(self, tab, name):
        height, width, values = tab.evaluate(PIXELS, name)
        return np.reshape(values, (height, width, 4))[..., :3] / 255

    def point_at(self, tab, z, limit=3.5):
        """Moves the pointer to z, and returns what is shown there."""
        tab.locator("#plane").scroll_into_view_if_needed()
        box = tab.locator("#plane").bounding_box()
        self.listen(tab, "walk")
        tab.mouse.move(
            box["x"] + box["width"] * float(z[0] / limit + 1) / 2,
            box["y"] + box["height"] * float(1 - z[1] / limit) / 2,
        )
        tab.wait_for_function("() => window.walk")
        tab.wait_for_timeout(100)  # until the newest is there
        return tab.evaluate("() => window.walk")

    def asked(self, tab):
        """The request that the page shows as its last."""
        tab.wait_for_timeout(200)
        line = tab.locator("#curl").text_content()
        return json.loads(re.search(r"-d '(.*)'", line).group(1))

    def limit(self, tab):
        return tab.evaluate("() => fetch('plane?x=0&y=1').then(r => r.json())")[
            "limit"
        ]

    def test_the_pointer_decodes(self):
        with self.page() as tab:
            limit = self.limit(tab)
            for z in ((0.5, -1.0), (-1.5, 2.0)):
                found = self.point_at(tab, z, limit)
                self.assertAllClose(found["z"], z, atol=2 * limit / 300)
                (image,) = self.client.decode([found["z"]])
                self.assertAllClose(found["image"], image, atol=1e-6)
                self.assertAllClose(
                    self.pixels(tab, "walk")[..., :1], image, atol=0.51 / 255
                )
            asked = self.asked(tab)
            self.assertEqual(asked["signature_name"], "decode")
            self.assertAllClose(asked["inputs"]["z"], [found["z"]])

    def test_a_mouse_that_leaves_takes_nothing_with_it(self):
        with self.page() as tab:
            limit = self.limit(tab)
            self.point_at(tab, (0.5, -0.5), limit)
            tab.mouse.down()
            tab.mouse.up()
            tab.wait_for_selector("#chosen:not([hidden])")
            stay = tab.locator("#z").text_content()
            asked = self.asked(tab)
            self.point_at(tab, (2.0, 2.0), limit)
            self.assertNotEqual(tab.locator("#z").text_content(), stay)
            tab.mouse.move(5, 5, steps=20)
            tab.wait_for_timeout(300)
            self.assertEqual(tab.locator("#z").text_content(), stay)
            self.assertEqual(self.asked(tab), asked)
            # Nor does a reply that comes when it has left.
            late = []
            tab.route("**/*:predict", lambda route: late.append(route))
            box = tab.locator("#plane").bounding_box()
            with tab.expect_request("**/*:predict"):
                tab.mouse.move(box["x"] + 20, box["y"] + 20)
            tab.mouse.move(5, 5)
            while late:
                late.pop().continue_()
                tab.wait_for_timeout(100)
            self.assertEqual(self.asked(tab), asked)

    def test_keys_walk_and_choose(self):
        with self.page() as tab:
            tab.focus("#plane")
            before = tab.locator("#z").text_content()
            tab.keyboard.press("ArrowRight")
            tab.keyboard.press("ArrowUp")
            self.assertNotEqual(tab.locator("#z").text_content(), before)
            tab.keyboard.press("Enter")
            tab.wait_for_selector("#chosen:not([hidden])")
            self.assertTrue(tab.locator("#terms tr").count() == 4)

    def test_a_point_tells_where_its_nats_go(self):
        with self.page() as tab:
            limit = self.limit(tab)
            (z,) = self.client.encode(self.held[0][:1]).mean
            self.point_at(tab, z, limit)
            self.listen(tab, "chosen")
            tab.mouse.down()
            tab.mouse.up()
            tab.wait_for_function("() => window.chosen")
            found = tab.evaluate("() => window.chosen")
            image = np.array([found["image"]])
            self.assertIn(image[0].tolist(), self.held[0].tolist())
            score = self.client.score(image, [0])
            terms = found["terms"]
            self.assertAllClose(terms["elbo"], score.elbo, rtol=1e-5)
            self.assertAllClose(
                np.sum(terms["reconstruction_per_pixel"]),
                score.reconstruction[0],
                rtol=1e-5,
            )
            self.assertAllClose(
                self.pixels(tab, "chosen-image")[..., :1], image[0]
            )
            self.assertIn(
                f"{-score.elbo[0]:.2f} nats", tab.inner_text("#terms")
            )
            tab.check("[value=probability]", force=True)
            self.assertIn(f"{score.elbo[0]:.2f} nats", tab.inner_text("#terms"))

    def test_a_drawing_is_scored_as_it_would_be(self):
        with self.page() as tab:
            tab.locator("#drawing").scroll_into_view_if_needed()
            box = tab.locator("#drawing").bounding_box()
            middle = box["x"] + box["width"] / 2
            self.listen(tab, "chosen")
            tab.fill("#brush", "12")
            tab.mouse.move(middle, box["y"] + 20)
            tab.mouse.down()
            tab.mouse.move(middle, box["y"] + box["height"] - 20, steps=5)
            tab.mouse.up()
            # Until the whole stroke is there.
            tab.wait_for_function(
                "() => window.chosen?.image.flat(2).reduce((a, b) => a + b) > 2"
            )
            tab.wait_for_timeout(500)
            found = tab.evaluate("() => window.chosen")
            image = np.array([found["image"]])
            self.assertAllEqual(np.unique(image), [0, 1])
            score = self.client.score(image, [0])
            self.assertAllClose(found["terms"]["elbo"], score.elbo, rtol=1e-5)
            self.assertIn(
                f"{-score.elbo[0]:.2f} nats", tab.inner_text("#terms")
            )
            asked = self.asked(tab)
            self.assertEqual(asked["signature_name"], "score_bytes")
            posterior = self.client.encode(image)
            self.assertAllClose([found["mean"]], posterior.mean, rtol=1e-5)

    def test_a_file_is_fitted(self):
        path = self.export_dir / "wide.png"
        Image.fromarray(np.full((20, 40, 3), 255, np.uint8)).save(path)
        broken = self.export_dir / "broken.png"
        broken.write_bytes(b"\x89PNG and no more")
        with self.page(fails=True) as tab:
            tab.set_input_files("#file", path)
            tab.wait_for_selector("#chosen:not([hidden])")
            self.assertGreater(self.pixels(tab, "chosen-image").mean(), 0.3)
            tab.set_input_files("#file", broken)
            tab.wait_for_selector("#failure:not([hidden])")
            self.assertIn("no image", tab.inner_text("#failure"))

    def test_the_switch_turns_every_word(self):
        said = {}
        with self.page() as tab:
            tab.focus("#plane")
            tab.keyboard.press("Enter")
            tab.wait_for_selector("#chosen:not([hidden])")
            tab.evaluate(
                "() => document.querySelectorAll('details').forEach("
                "d => { d.open = true; })"
            )
            for language in ("network", "probability"):
                tab.check(f"[value={language}]", force=True)
                said[language] = tab.evaluate(
                    "() => [...document.querySelectorAll('[data-word]')].map("
                    "e => [e.dataset.word, e.textContent, e.title])"
                )
                page = tab.evaluate(
                    """() => {
                      const copy = document.body.cloneNode(true);
                      for (const e of copy.querySelectorAll(
                        "#glossary, #language, .code, noscript, #facts"))
                        e.remove();
                      return copy.textContent;
                    }"""
                )
                other = PROBABILITY if language == "network" else NETWORK
                for word in other:
                    pattern = r"\b" + re.escape(word)
                    self.assertNotRegex(page, pattern, language)
            for one, two in zip(said["network"], said["probability"]):
                self.assertEqual(one[0], two[0])
                self.assertNotEqual(one[1], two[1])
                self.assertIn("Probability: ", one[2])
            # It is remembered.
            tab.reload()
            tab.wait_for_selector("body[data-ready]")
            self.assertTrue(tab.is_checked("[value=probability]"))

    def test_ways_strips_and_draws(self):
        with self.page() as tab:
            limit = self.limit(tab)
            first = self.point_at(tab, (-1, 0.5), limit)["z"]
            tab.focus("#plane")
            tab.keyboard.press("a")
            last = self.point_at(tab, (1, 1), limit)["z"]
            self.listen(tab, "way")
            tab.keyboard.press("b")
            tab.wait_for_function("() => window.way")
            way = tab.evaluate("() => window.way")
            self.assertLen(way["z"], 11)
            self.assertAllClose([way["z"][0], way["z"][-1]], [first, last])
            self.assertAllClose(
                way["images"], self.client.decode(way["z"]), atol=1e-6
            )
            with tab.expect_download() as got:
                tab.click("#save-animation")
            self.assertEqual(Image.open(got.value.path()).n_frames, 20)
            tab.evaluate("() => { window.way = null; }")
            tab.check("[value=spherical]", force=True)
            tab.wait_for_function("() => window.way")
            lengths = np.linalg.norm(
                tab.evaluate("() => window.way.z"), axis=-1
            )
            ends = np.linalg.norm([first, last], axis=-1)
            self.assertAllClose(lengths, np.linspace(*ends, 11), rtol=1e-4)
            tab.fill("#seed", "5")
            tab.click("#draw-prior")
            tab.wait_for_timeout(500)
            asked = self.asked(tab)
            self.assertEqual(asked["signature_name"], "sample")
            self.assertEqual(asked["inputs"]["seed"], list(range(5, 21)))
            mean = self.client.sample(range(5, 21)).mean
            self.assertAllClose(
                self.pixels(tab, "prior")[:4, :3, :1], mean[0], atol=0.51 / 255
            )

    def test_the_lines_name_what_is_asked_and_no_secret(self):
        for about, curl, lines in (
            (
                {"url": "https://h/x", "version": 3, "authorization": "bearer"},
                'curl -s -H "Authorization: Bearer $TOKEN" '
                "https://h/x/v1/models/vae/versions/3:predict -d '{",
                'Client("https://h/x", model="vae", version=3, '
                'token=os.environ["TOKEN"])',
            ),
            (
                {"url": "grpc://h:8500", "model": "it's", "label": "new"},
                "curl -s 'http://h:8501/v1/models/it'\\''s/labels/new:predict'",
                'Client("grpc://h:8500", model="it\'s", label="new")',
            ),
        ):
            with self.page(**about) as tab:
                tab.focus("#plane")
                tab.keyboard.press("ArrowRight")
                tab.wait_for_timeout(500)
                self.assertStartsWith(tab.inner_text("#curl"), curl)
                self.assertIn(lines, tab.inner_text("#python"))

    @pytest.mark.slow
    def test_over_a_server_the_lines_it_shows_run(self):
        with (
            serving(DOUBLE, self.export_dir) as server,
            Client(server.rest) as client,
            self.page(client, url=server.rest) as tab,
        ):
            limit = self.limit(tab)
            found = self.point_at(tab, (0.3, -0.7), limit)
            (image,) = self.client.decode([found["z"]])
            self.assertAllClose(found["image"], image, atol=1e-6)
            tab.focus("#plane")
            self.listen(tab, "walk")
            tab.keyboard.press("ArrowRight")  # There it stays.
            tab.wait_for_function("() => window.walk")
            found = tab.evaluate("() => window.walk")
            (image,) = self.client.decode([found["z"]])
            tab.wait_for_timeout(200)
            tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
            tab.click("[data-copy=curl]")
            tab.wait_for_selector("[data-copy=curl]:text('Copied')")
            line = tab.evaluate("() => navigator.clipboard.readText()")
            self.assertStartsWith(line, f"curl -s {server.rest}/v1/models/vae")
            answer = subprocess.run(
                line, shell=True, check=True, capture_output=True
            )
            outputs = json.loads(answer.stdout)["outputs"]
            self.assertAllClose(outputs, [image], atol=1e-6)
            lines = tab.locator("#python").text_content()
            answer = subprocess.run(
                [sys.executable, "-c", lines],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            )
            self.assertStartsWith(answer.stdout, "{'image': array(")


if __name__ == "__main__":
    tf.test.main()
