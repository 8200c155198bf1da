import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from small import combined, random_bits, small_vae

import vae_tf


class ExplanationTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae = small_vae()
        cls.image = random_bits(3)[1]
        cls.found = vae_tf.explain(cls.vae, cls.image)
        cls.by_name = {one.probability: one for one in cls.found.quantities}

    def value(self, name):
        return self.by_name[name].value

    def test_the_parts_make_the_whole(self):
        elbo = self.value("E_q[log p(x|z)]") - self.value("KL(q(z|x) || p(z))")
        self.assertAllClose(elbo, self.value("ELBO"), 1e-5)
        self.assertAllClose(
            self.found.kl_per_dimension.sum(),
            self.value("KL(q(z|x) || p(z))"),
            1e-5,
        )
        self.assertAllClose(
            -self.found.pixel_cost.sum(), self.value("E_q[log p(x|z)]"), 1e-4
        )
        self.assertEqual(self.by_name["KL(q(z|x) || p(z))"].error, 0)
        gap = self.value("amortization gap") + self.value("approximation gap")
        errors = [one.error for one in self.found.quantities]
        self.assertAllClose(
            self.value("ELBO") + gap,
            self.value("log p(x)"),
            atol=5 * np.linalg.norm(errors),
        )

    def test_a_table_in_both_languages(self):
        table = str(self.found)
        for words in (
            "reconstruction loss",
            "regulariser",
            "E_q[log p(x|z)]",
            "log p(x)",
            "nats",
            "KL by latent dimension: z",
            "pixels that cost most: row ",
        ):
            self.assertIn(words, table)
        self.assertIn(f"{self.value('ELBO'):.3f}", table)


class AnyModelTest(parameterized.TestCase, tf.test.TestCase):
    def test_one_whose_kl_has_no_closed_form(self):
        vae = combined(posterior="iaf", prior="mixture")
        found = vae_tf.explain(vae, random_bits(1), num_samples=50)
        self.assertIsNone(found.kl_per_dimension)
        kl = found.quantities[1]
        self.assertGreater(kl.error, 0)

    @parameterized.parameters((2, 4, 3, 1), (4, 3), (5, 3, 1))
    def test_more_than_an_image(self, *shape):
        with self.assertRaisesRegex(vae_tf.UserError, "image: expected one"):
            vae_tf.explain(small_vae(), np.zeros(shape, np.float32))
