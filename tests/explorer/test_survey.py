from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from endpoints import Exported
from small import random_bits, small_vae

import vae_tf
from vae_tf.explorer import survey as rooms
from vae_tf.explorer.survey import survey


class SurveyTest(Exported):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.vae = small_vae()
        cls.client = cls.export(cls.vae)

    def test_says_where_held_out_images_are(self):
        images, labels = random_bits(30), np.arange(30) % 3
        seen = survey(self.client, images, labels)
        posterior = self.vae.encoder(images)
        self.assertAllClose(seen.mean, posterior.mean(), atol=1e-5)
        self.assertAllClose(seen.stddev, posterior.stddev(), atol=1e-5)
        self.assertAllEqual(seen.labels, labels)
        self.assertTrue(seen.are_held_out)
        # KL(N(m, s^2) || N(0, 1)) of each dimension.
        kl = (seen.mean**2 + seen.stddev**2 - 1 - 2 * np.log(seen.stddev)).mean(
            0
        ) / 2
        self.assertAllClose(seen.per_dimension, kl, rtol=1e-4)
        self.assertIn("KL", seen.per_dimension_name)
        apart = (seen.sample - seen.mean) / seen.stddev
        self.assertBetween(np.mean(apart**2), 0.5, 1.6)

    def test_without_images_shows_draws_of_the_model(self):
        seen = survey(self.client)
        self.assertFalse(seen.are_held_out)
        self.assertIsNone(seen.labels)
        drawn = self.client.sample(range(rooms.OWN_IMAGES))
        self.assertAllEqual(seen.images, drawn.image)
        self.assertAllClose(
            seen.mean, self.vae.encoder(drawn.image).mean(), atol=1e-5
        )

    def test_of_many_images_takes_as_many_as_can_be_asked_for(self):
        with mock.patch.object(rooms, "MAX_PIXELS", 120):
            seen = survey(self.client, random_bits(30), np.arange(30))
        self.assertLen(seen.images, 10)
        self.assertLen(seen.labels, 10)

    @pytest.mark.slow
    def test_where_posteriors_do_not_factorise_variances_tell(self):
        client = self.export(small_vae(posterior="full_covariance"))
        seen = survey(client, random_bits(20))
        self.assertAllClose(seen.per_dimension, seen.mean.var(0))
        self.assertIn("variance", seen.per_dimension_name)

    @pytest.mark.slow
    def test_a_model_without_an_encoder(self):
        vae = vae_tf.LocalVAE(
            vae_tf.PosteriorTable(2, 3),
            vae_tf.Decoder((4, 3, 1), hidden_units=(5,)),
            vae_tf.PosteriorTable(2, 3, trainable=False),
        )
        client = self.export(vae)
        seen = survey(client, random_bits(4))
        self.assertFalse(seen.are_held_out)
        self.assertAllEqual(seen.mean, client.sample(range(300)).z)


if __name__ == "__main__":
    tf.test.main()
