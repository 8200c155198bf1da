import math

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.config import LIKELIHOODS
from vae_tf.evaluation.comparison import Measured, compare, paired
from vae_tf.settings import UserError

CONDITIONS = {
    "dataset": "mnist/3.0.1",
    "image_shape": [28, 28, 1],
    "checksum": "sha256:1",
    "split": "test",
    "num_examples": 400,
    "binarization": "dynamic",
    "dequantization": "none",
    "likelihood": "bernoulli",
    "method": "importance",
    "num_importance_samples": 1000,
}


def measured(run, gain=0.0, settings=None, seed=None, **conditions):
    """A run on images whose log p(x) spreads by 25 nats, some nats better than
    -90, by 1 nat to and fro where there is a seed.
    """
    conditions = CONDITIONS | conditions
    count = conditions["num_examples"]
    log_p = 25 * np.random.default_rng(0).standard_normal(count) - 90 + gain
    if seed is not None:
        log_p += np.random.default_rng(seed).standard_normal(count)
    return Measured(
        run, settings or {"beta": 1.0}, conditions, log_p - 5, log_p
    )


def only_elbo(run):
    return run._replace(log_marginal_likelihood=None)


class PairedTest(tf.test.TestCase):
    def test_of_a_gain_that_is_known(self):
        # Gains 1, 2, .., N: mean (N + 1) / 2, variance N (N + 1) / 12.
        count = 99
        baseline = 25 * np.random.default_rng(0).standard_normal(count)
        gain, error = paired(baseline + 1 + np.arange(count), baseline)
        self.assertAllClose(gain, (count + 1) / 2)
        self.assertAllClose(error, math.sqrt((count + 1) / 12))

    def test_the_error_is_the_spread_of_the_mean_over_sets_of_images(self):
        # Both models' log p(x) spread by 25 nats; what they share drops out.
        generator = np.random.default_rng(1)
        images = 25 * generator.standard_normal((2000, 100))
        other = images + 0.3 + 2 * generator.standard_normal(images.shape)
        gains, errors = np.array([paired(*p) for p in zip(other, images)]).T
        self.assertAllClose(gains.mean(), 0.3, atol=0.02)
        self.assertAllClose(gains.std(), 0.2, 0.05)
        self.assertAllClose(np.sqrt(np.mean(errors**2)), gains.std(), 0.05)

    def test_one_image_has_no_error(self):
        gain, error = paired(np.array([-3.0]), np.array([-5.0]))
        self.assertEqual(gain, 2)
        self.assertTrue(math.isnan(error))


class CompareTest(parameterized.TestCase, tf.test.TestCase):
    def test_the_best_is_first_and_differences_are_from_the_one_named_first(
        self,
    ):
        runs = [measured("a"), measured("b", 2, seed=1), measured("c", -1)]
        found = compare(runs)
        self.assertEqual([row.run for row in found.rows], ["b", "a", "c"])
        self.assertEqual((found.ranked_by, found.baseline), ("log p(x)", "a"))
        better, itself, worse = found.rows
        self.assertAllClose(better.difference, 2, atol=0.2)
        self.assertAllClose(better.difference_standard_error, 1 / 20, 0.1)
        self.assertAllClose(better.standard_error, 25 / 20, 0.1)
        self.assertAllClose(worse.difference, -1)
        self.assertAllClose(worse.difference_standard_error, 0)
        self.assertAllClose(
            better.log_marginal_likelihood - itself.log_marginal_likelihood,
            better.difference,
        )

    def test_the_other_way_round_only_signs_change(self):
        runs = [measured("a"), measured("b", 2, seed=1)]
        forth, back = compare(runs), compare(runs[::-1])
        names = [row.run for row in forth.rows]
        self.assertEqual([row.run for row in back.rows], names)
        b, a = forth.rows[0], back.rows[1]
        self.assertEqual(a.difference, -b.difference)
        self.assertEqual(
            a.difference_standard_error, b.difference_standard_error
        )

    def test_equal_runs_differ_by_exactly_nothing(self):
        for row in compare([measured("a"), measured("b")]).rows:
            self.assertEqual(row.difference, 0)
            self.assertEqual(row.difference_standard_error, 0)
        table = str(compare([measured("a"), measured("b")]))
        self.assertRegex(table, r"\nb +-\S+ +-\S+ ± \S+ +1000 +0\n")

    @parameterized.named_parameters(
        (
            "static_against_dynamic",
            {"dataset": "binarized_mnist/1.0.0", "binarization": "none"},
            r"one dataset, received mnist/3.0.1 \(a\) and "
            r"binarized_mnist/1.0.0 \(b\): log p\(x\) of other images",
        ),
        (
            "binarization",
            {"binarization": "static"},
            r"binarization, received dynamic \(a\) and static \(b\): grey",
        ),
        (
            "dequantization",
            {"dequantization": "uniform"},
            r"dequantization, received none \(a\) and uniform \(b\): grey",
        ),
        (
            "density",
            {
                "likelihood": "normal",
                "binarization": "none",
                "dequantization": "uniform",
            },
            r"kind of p\(x\|z\), received probabilities \(a\) and densities "
            r"\(b\): the logarithm of a density .* unit",
        ),
        ("size", {"image_shape": [14, 14, 1]}, "one image shape, .*: log p"),
        ("pixels", {"checksum": "sha256:2"}, "one checksum of the images, "),
        ("split", {"split": "validation"}, "split, .*test .*validation .*:"),
        ("count", {"num_examples": 50}, "number of images, received 400 .* 50"),
        (
            "elbo",
            {"num_importance_samples": 1},
            r"one quantity, received log p\(x\) \(a\) and ELBO \(b\): an ELBO, "
            r".* K = 1 .* is below log p\(x\) by KL",
        ),
    )
    def test_refuses(self, conditions, reason):
        runs = [measured("a"), measured("b", **conditions)]
        with self.assertRaisesRegex(UserError, f"--compare: .*{reason}"):
            compare(runs)
        # Wherever it stands, and in a company of its own it is welcome.
        with self.assertRaisesRegex(UserError, "--compare: "):
            compare([runs[1], runs[1], runs[0]])
        self.assertLen(compare([runs[1], runs[1]]).rows, 2)

    def test_refuses_an_elbo_that_stands_alone(self):
        runs = [only_elbo(measured("a")), measured("b")]
        with self.assertRaisesRegex(UserError, "one quantity, received ELBO"):
            compare(runs)

    def test_refuses_one_run_alone(self):
        for runs, received in (([measured("a")], "a"), ([], "none")):
            with self.assertRaisesRegex(UserError, f"two .* {received}\\."):
                compare(runs)

    def test_every_likelihood_compares_with_its_own_kind_alone(self):
        densities = {"continuous_bernoulli", "normal"}
        for one in LIKELIHOODS:
            for other in LIKELIHOODS:
                runs = [measured("", likelihood=name) for name in (one, other)]
                if (one in densities) == (other in densities):
                    compare(runs)
                else:
                    with self.assertRaisesRegex(UserError, "densities"):
                        compare(runs)

    def test_elbos_are_ranked_among_themselves(self):
        one = {"num_importance_samples": 1}
        # The estimates of log p(x) of one draw are noise about the ELBO.
        runs = [measured("a", 1, **one), only_elbo(measured("b", 3))]
        found = compare(runs)
        self.assertEqual(found.ranked_by, "ELBO")
        self.assertEqual([row.run for row in found.rows], ["b", "a"])
        self.assertAllClose(found.rows[0].difference, 2)
        for row in found.rows:
            self.assertIsNone(row.log_marginal_likelihood)
        self.assertRegex(str(found), r"\nb +-\S+ ± \S+ +1000 +2.000 ± ")

    def test_k_and_method_may_differ_which_is_said(self):
        same, few = measured("a"), measured("b", num_importance_samples=100)
        exact = measured("c", method="quadrature", num_importance_samples=1)
        self.assertNotIn("K or method", str(compare([same, same])))
        for other, shown in ((few, "100"), (exact, "quadrature")):
            table = str(compare([same, other]))
            self.assertRegex(table, rf"\n{other.run} .* {shown} ")
            self.assertIn("K or method differs", table)

    def test_the_table_shows_the_settings_that_differ_and_no_others(self):
        settings = {"latent_dim": 2, "hidden_units": (400, 256), "seed": None}
        runs = [
            measured("runs/a", settings=settings),
            measured("b", 1, settings | {"hidden_units": (8,), "seed": 7}),
        ]
        lines = str(compare(runs)).splitlines()
        self.assertRegex(
            lines[0],
            r"^run +hidden_units +seed +ELBO +log p\(x\) +K +from runs/a +/ s",
        )
        self.assertRegex(lines[1], r"^b +8 +7 +-\d")
        self.assertRegex(lines[2], r"^runs/a +400,256 +unset +-\d")
        # In columns.
        ends = {line.index("1000") for line in lines[1:3]}
        self.assertLen(ends, 1)
        self.assertContainsSubset(
            {"mnist/3.0.1", "400 images", "test split"},
            {part for part in lines[4].replace("; ", ", ").split(", ")},
        )
