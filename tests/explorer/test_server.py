import base64
import io
import json
import pathlib
import re

import numpy as np
import tensorflow as tf
from endpoints import Exported
from PIL import Image
from small import random_bits, small_vae
from starlette.testclient import TestClient

from vae_tf.explorer.server import Explorer
from vae_tf.explorer.survey import survey
from vae_tf.pictures import latent_points

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "vae_tf/explorer/page"
PREDICT = "/v1/models/vae:predict"


class ServerTest(Exported):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.export(small_vae())
        cls.images, cls.labels = random_bits(12), np.arange(12) % 2
        cls.seen = survey(cls.client, cls.images, cls.labels)
        about = {"source": "a test", "url": "http://127.0.0.1:8501"}
        application = Explorer(cls.client, cls.seen, about).application()
        cls.page = TestClient(application, "http://127.0.0.1")

    def get(self, path):
        reply = self.page.get(path)
        self.assertEqual(reply.status_code, 200, reply.text)
        return reply.json()

    def post(self, path, body, code=200):
        reply = self.page.post(path, content=json.dumps(body))
        self.assertEqual(reply.status_code, code, reply.text)
        return reply.json()

    def test_the_page_and_its_modules_are_served(self):
        for path in ("/", "/main.js", "/style.css", "/words.json"):
            self.assertEqual(self.page.get(path).status_code, 200, path)

    def test_says_what_there_is(self):
        found = self.get("/model")
        self.assertEqual(found["latent_dim"], 2)
        self.assertEqual(found["image_shape"], [4, 3, 1])
        self.assertEqual(found["classes"], [0, 1])
        self.assertEqual(found["source"], "a test")
        self.assertContainsSubset(["decode", "score"], found["signatures"])
        self.assertAllClose(found["middle"], self.seen.mean.mean(0))

    def test_planes(self):
        found = self.get("/plane?x=1&y=0")
        self.assertAllClose(found["means"], self.seen.mean[:, ::-1], atol=1e-3)
        samples = self.seen.sample[:, ::-1]
        self.assertAllClose(found["samples"], samples, atol=1e-3)
        self.assertEqual(found["labels"], self.labels.tolist())
        self.assertEqual(found["axes"], [[0, 1], [1, 0]])
        self.assertLen(found["contours"], 3)
        principal = self.get("/plane")
        back = np.array(principal["means"]) @ principal["axes"]
        self.assertAllClose(
            back + principal["origin"], self.seen.mean, atol=1e-3
        )

    def test_an_image_is_what_was_surveyed(self):
        found = self.get("/image/3")
        self.assertAllEqual(found["image"], self.images[3])
        self.assertEqual(found["label"], 1)
        self.assertEqual(self.page.get("/image/12").status_code, 404)

    def test_predicts_as_the_endpoint_does(self):
        z = [[0.5, -1.0], [0.0, 0.25]]
        body = {"signature_name": "decode", "inputs": {"z": z}}
        # One output goes without its name, as TensorFlow Serving has it.
        found = self.post(PREDICT, body)["outputs"]
        self.assertAllClose(found, self.client.decode(z), rtol=1e-6)
        body = {"inputs": {"z": z}}
        self.assertAllEqual(self.post(PREDICT, body)["outputs"], found)
        image, seed = self.images[:2].tolist(), [3, 4]
        body = {
            "signature_name": "score",
            "inputs": {"image": image, "seed": seed},
        }
        found = self.post(PREDICT, body)["outputs"]
        score = self.client.score(image, seed)
        self.assertAllClose(found["elbo"], score.elbo, rtol=1e-6)

    def test_takes_and_gives_files(self):
        body = {"signature_name": "sample_png", "inputs": {"seed": [7]}}
        (one,) = self.post(PREDICT, body)["outputs"]
        png = base64.b64decode(one["b64"])
        self.assertEqual(png, self.client.sample_png([7])[0])
        body = {
            "signature_name": "encode_bytes",
            "inputs": {"image_bytes": [one], "seed": [0]},
        }
        found = self.post(PREDICT, body)["outputs"]
        self.assertEqual(found["valid"], [True])
        self.assertEqual(np.shape(found["image"]), (1, 4, 3, 1))

    def test_what_is_no_number_is_null(self):
        grey = np.full((1, 4, 3, 1), 0.5).tolist()  # no image of bits
        body = {
            "signature_name": "score",
            "inputs": {"image": grey, "seed": [0]},
        }
        self.assertEqual(self.post(PREDICT, body)["outputs"]["elbo"], [None])

    def test_ways_and_axes_are_those_of_the_pictures(self):
        body = {"start": [1, 0], "stop": [0, 2], "points": 5}
        for path in latent_points.PATHS:
            found = self.post("/way", body | {"path": path})["z"]
            expected = latent_points.interpolation(
                np.array([1.0, 0]), np.array([0, 2.0]), 5, path
            )
            self.assertAllEqual(np.float32(found), expected)
        for spacing in latent_points.SPACINGS:
            found = self.get(f"/axis?points=7&spacing={spacing}")["values"]
            expected = latent_points.axis(7, spacing)
            self.assertAllEqual(np.float32(found), expected)

    def test_an_animation_goes_there_and_back(self):
        z = [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
        reply = self.page.post("/animation.gif", content=json.dumps({"z": z}))
        self.assertEqual(reply.headers["content-type"], "image/gif")
        gif = Image.open(io.BytesIO(reply.content))
        self.assertEqual(gif.n_frames, 4)
        larger = gif.size[0] // 3
        first = np.asarray(gif.convert("L"), np.float32) / 255
        self.assertAllClose(
            first[larger // 2 :: larger, larger // 2 :: larger],
            self.client.decode(z)[0, :, :, 0],
            atol=1 / 128,
        )

    def test_refuses_with_a_line(self):
        for path, body, words in (
            (PREDICT, {"inputs": {"z": [[0.0]]}}, "z: expected"),
            (PREDICT, {"inputs": 3}, "inputs: exp"),
            (PREDICT, [], "body: expected a JSON object"),
            (PREDICT, {"signature_name": [], "inputs": {}}, "inputs: exp"),
            (PREDICT, {"inputs": {"z": [{"b64": 3}]}}, "inputs: exp"),
            (PREDICT, {"inputs": {"z": "text"}}, "z: expected"),
            (PREDICT, {"inputs": {}}, "expected"),
            ("/way", {"start": [0]}, "start, stop: expected"),
            ("/way", {"start": [0], "stop": [1], "points": 1}, "points: exp"),
            (
                "/way",
                {"start": [0], "stop": [1], "points": 3, "path": "x"},
                "path: expected",
            ),
            ("/animation.gif", {"z": 3}, "z: expected"),
            ("/animation.gif", {"z": []}, "z: expected"),
        ):
            with self.subTest(body=body):
                self.assertIn(words, self.post(path, body, 400)["error"])
        for path in ("/plane?x=0&y=0", "/plane?x=9&y=0", "/axis?points=x"):
            self.assertEqual(self.page.get(path).status_code, 400)
        reply = self.page.post(PREDICT, content=b"[" * 100_000)
        self.assertEqual(reply.status_code, 400)

    def test_no_other_site_makes_it_work(self):
        body = json.dumps({"inputs": {"z": [[0.0, 0.0]]}})
        for site, code in (("cross-site", 403), ("same-origin", 200)):
            reply = self.page.post(
                PREDICT, content=body, headers={"Sec-Fetch-Site": site}
            )
            self.assertEqual(reply.status_code, code)

    def test_answers_pages_of_this_machine_alone(self):
        reply = self.page.get("/model", headers={"Host": "example.com"})
        self.assertEqual(reply.status_code, 400)

    def test_both_languages_are_whole(self):
        found = json.loads((PAGE / "words.json").read_text())
        rows = {}
        for line in (ROOT / "docs/glossary.md").read_text().splitlines():
            cells = re.split(r"(?<!\\)\|", line.replace("---", ""))[1:-1]
            if len(cells) == 4 and cells[0].strip() not in ("", "term"):
                term, network, probability, _ = (
                    cell.strip().replace("\\|", "|") for cell in cells
                )
                rows[term] = {"network": network, "probability": probability}
        self.assertEqual(found["glossary"], rows)
        sources = "".join(
            path.read_text()
            for path in PAGE.iterdir()
            if path.suffix != ".json"
        )
        for key, word in found["words"].items():
            self.assertNotEqual(word["network"], word["probability"], key)
            self.assertIn(word["term"], rows)
            self.assertIn(f'"{key}"', sources)
        for key in re.findall(r'data-word="(\w+)"', sources):
            self.assertIn(key, found["words"])


if __name__ == "__main__":
    tf.test.main()
