import html.parser
import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from finished import CONFIG, FinishedRun
from PIL import Image

import vae_tf
from vae_tf.runs import report
from vae_tf.runs.sums import sealed


class Page(html.parser.HTMLParser):
    """What a page shows and what it would load."""

    VOID = {"meta", "img", "link", "br", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.loads, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        self.loads += [values[k] for k in ("src", "href") if k in values]

    def handle_endtag(self, tag):
        if tag != self.open.pop():
            raise AssertionError(f"</{tag}> closes another element")

    def handle_data(self, data):
        self.text.append(data)


class ReportTest(FinishedRun):
    changes = {"figures_every": 1}

    def page(self, run_dir=None):
        return Page(((run_dir or self.finished) / "report.html").read_text())

    def test_training_leaves_pictures_animations_and_a_page(self):
        found = {path.name for path in (self.finished / "figures").iterdir()}
        self.assertEqual(
            found,
            {name for name, _, _ in report.FIGURES}
            | {"snapshots", "plane.npz"},
        )
        for name in found - {"snapshots", "plane.npz"}:
            with Image.open(self.finished / "figures" / name) as picture:
                frames = getattr(picture, "n_frames", 1)
                self.assertEqual(frames, 3 if name.endswith("gif") else 1)

    def test_the_page_needs_nothing_beside_it(self):
        page = self.page()
        self.assertEmpty(page.open)  # every element is closed
        self.assertLen(page.images, len(report.FIGURES) + 1)  # and the plane
        for image in page.images:
            self.assertGreater(len(image["alt"]), 10)
        for address in page.loads:
            self.assertStartsWith(address, "data:image/")
        text = (self.finished / "report.html").read_text()
        self.assertNotIn("http", text)
        self.assertNotIn("$", re.sub(r"base64,[^\"]*", "", text))

    def test_the_page_says_what_was_run_and_reached(self):
        run_dir = self.copy()
        text = " ".join(self.page(run_dir).text)
        for expected in ("latent_dim", "digits (scikit-learn)", "sha256:"):
            self.assertIn(expected, text)
        self.assertIn("log p(x) has not been measured", text)
        self.assertIn("has not been taken apart yet", text)
        top = max(
            float(line.split(",")[6])
            for line in (run_dir / "metrics.csv").read_text().split()[1:]
        )
        self.assertIn(f"ELBO {top:.2f} nats per image", text)
        # Measuring writes the page anew.
        result = vae_tf.evaluate_run(run_dir, num_importance_samples=20)
        page = self.page(run_dir)
        self.assertEmpty(page.open)
        self.assertLen(page.images, len(report.FIGURES) + 2)
        self.assertTrue((run_dir / "figures/evaluation_test.png").is_file())
        text = " ".join(page.text)
        self.assertNotIn("has not been measured", text)
        self.assertNotIn("has not been taken apart", text)
        found = result["decomposition"]
        for name in ("mutual_information", "marginal_kl", "distortion"):
            self.assertIn(f"{found[name]:.3f}", text)
        self.assertIn("linear probe accuracy", text)
        self.assertNotIn("weighted bound by samples", text)  # drawn instead
        for name in ("log_marginal_likelihood", "standard_error"):
            self.assertIn(f"{result[name]:.3f}", text)
        self.assertBetween(result["knn_accuracy"], 0.0, 1.0)
        low, high = result["log_marginal_likelihood_interval"]
        self.assertIn(f"{low:.3f} to {high:.3f}", text)

    def test_a_run_without_its_metrics_says_what_makes_them_anew(self):
        run_dir = self.copy()
        (run_dir / "metrics.csv").unlink()
        with self.assertRaisesRegex(
            vae_tf.UserError, r"metrics.csv: expected .* \(--resume writes"
        ):
            report.report_run(run_dir)

    def test_names_of_the_user_s_do_not_break_the_page(self):
        run_dir = self.copy()
        path = run_dir / "config.json"
        values = json.loads(path.read_text())
        values["data"]["variant"] = "<b>&"
        with sealed(path) as temporary:
            temporary.write_text(json.dumps(values))
        report.write(run_dir)
        self.assertIn("<b>&", " ".join(self.page(run_dir).text))

    def test_names_no_directory_of_this_machine(self):
        run_dir = self.copy()
        path = run_dir / "config.json"
        values = json.loads(path.read_text())
        values |= {"dataset": "/home/ann/crops", "data_dir": "/home/ann/tfds"}
        with sealed(path) as temporary:
            temporary.write_text(json.dumps(values))
        text = report.write(run_dir).read_text()
        self.assertIn("<th scope='row'>dataset</th><td class=''>crops<", text)
        self.assertNotIn("/home/ann", text)
        for directory in (run_dir.parent, self.finished.parent):
            self.assertNotIn(str(directory), text)

    def test_gaps_that_were_measured_have_a_section(self):
        run_dir = self.copy()
        report.write(run_dir)
        before = self.page(run_dir)
        self.assertNotIn("From the ELBO to log p(x)", " ".join(before.text))
        gaps = {"num_examples": 3, "amortization": 0.125, "converged": 1.0}
        (run_dir / "evaluation-train.json").write_text(
            json.dumps({"split": "train", "inference_gaps": gaps})
        )
        Image.new("RGB", (2, 2)).save(run_dir / "figures" / "gaps_train.png")
        report.write(run_dir)
        page = self.page(run_dir)
        text = " ".join(page.text)
        self.assertIn("From the ELBO to log p(x)", text)
        self.assertIn("The first 3 images of the train split", text)
        self.assertIn("0.125", text)
        self.assertLen(page.images, len(before.images) + 1)

    @pytest.mark.slow
    def test_one_command_draws_everything_anew(self):
        run_dir = self.copy()
        expected = {
            path.name: np.asarray(Image.open(path).convert("RGB"))
            for path in (run_dir / "figures").glob("*.*")
            if path.name != "plane.npz"
        }
        page = report.write(run_dir).read_bytes()
        for name in [*expected, "plane.npz"]:
            (run_dir / "figures" / name).unlink()
        (run_dir / "report.html").unlink()
        report.report_run(run_dir)
        self.assertTrue((run_dir / "report.html").read_bytes() == page)
        for name, picture in expected.items():
            again = Image.open(run_dir / "figures" / name).convert("RGB")
            self.assertAllEqual(np.asarray(again), picture)
        self.assertTrue((run_dir / "report.html").is_file())
        report.report_run(run_dir, prior_predictive="means")
        again = Image.open(run_dir / "figures" / "prior_predictive.png")
        self.assertNotAllEqual(
            np.asarray(again.convert("RGB")), expected["prior_predictive.png"]
        )


class FewImagesTest(parameterized.TestCase, tf.test.TestCase):
    """Of fewer than 20 images, one is held out."""

    @pytest.mark.slow
    def test_a_run_ends_with_a_report(self):
        self.assert_a_run_ends_with_a_report(10, 2)

    @parameterized.parameters((12, 1), (19, 3))
    @pytest.mark.slow
    def test_a_run_of_other_dimensions_does(self, count, latent_dim):
        self.assert_a_run_ends_with_a_report(count, latent_dim)

    def assert_a_run_ends_with_a_report(self, count, latent_dim):
        folder = pathlib.Path(self.create_tempdir().full_path)
        pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 4))
        for number, image in enumerate(pixels.astype(np.uint8)):
            path = folder / f"crops/{'ab'[number % 2]}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        changes = {"epochs": 1, "figures_every": 1, "latent_dim": latent_dim}
        run = vae_tf.train(
            vae_tf.Config(
                **CONFIG
                | changes
                | {"dataset": folder / "crops", "run_dir": str(folder / "run")}
            )
        )
        page = Page((run.run_dir / "report.html").read_text())
        # There is nothing to go to from a single image; there is the plane.
        self.assertLen(page.images, len(report.FIGURES) - 1 + 1)
        self.assertFalse((run.run_dir / "figures/interpolations.png").exists())
