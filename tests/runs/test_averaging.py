import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.runs import directory
from vae_tf.runs.averaging import averaged

MOMENTUM = 0.75


def arrays(variables):
    return [np.array(tf.convert_to_tensor(v)) for v in variables]


class AveragingTest(parameterized.TestCase, tf.test.TestCase):
    def model(self):
        keras.utils.set_random_seed(0)
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(8,)),
            vae_tf.Decoder((4, 4, 1), hidden_units=(8,)),
        )
        vae.compile(
            keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=MOMENTUM)
        )
        return vae

    def test_is_the_moving_average_of_the_weights_after_each_update(self):
        vae = self.model()
        images = np.random.default_rng(0).integers(0, 2, (8, 4, 4, 1))
        expected = None
        for _ in range(5):
            vae.train_on_batch(images.astype(np.float32))
            weights = arrays(vae.trainable_variables)
            expected = [
                weight if before is None else MOMENTUM * before + weight / 4
                for before, weight in zip(
                    expected or [None] * len(weights), weights, strict=True
                )
            ]
        with averaged(vae):
            found = arrays(vae.trainable_variables)
        self.assertAllClose(found, expected, 1e-6, 1e-7)
        self.assertNotAllClose(found[0], weights[0], 1e-4, 1e-4)

    def test_weights_are_theirs_again_to_the_bit(self):
        vae = self.model()
        vae.fit(np.zeros((8, 4, 4, 1), np.float32), verbose=0)
        before = arrays(vae.variables + vae.optimizer.variables)
        with self.assertRaises(KeyError), averaged(vae):
            raise KeyError
        after = arrays(vae.variables + vae.optimizer.variables)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_one_without_an_average_stays_as_it_is(self):
        vae = self.model()
        vae.compile(keras.optimizers.Adam())
        vae.fit(np.zeros((8, 4, 4, 1), np.float32), verbose=0)
        before = arrays(vae.variables)
        with averaged(vae):
            self.assertAllEqual(arrays(vae.variables)[0], before[0])

    @pytest.mark.slow
    def test_a_run_validates_and_keeps_the_average(self):
        self.assert_a_run_keeps_the_average(jit_compile=False)

    @pytest.mark.slow
    def test_a_compiled_run_validates_and_keeps_the_average(self):
        self.assert_a_run_keeps_the_average(jit_compile=True)

    def assert_a_run_keeps_the_average(self, jit_compile):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.create_tempdir().full_path)
        settings = {
            "dataset": "digits",
            "epochs": 2,
            "hidden_units": (16,),
            "figures_every": 1,
            "tensorboard": False,
            "jit_compile": jit_compile,
        }
        rows = {}
        for momentum in (0.0, 0.9):
            run = vae_tf.train(
                vae_tf.Config(
                    ema_momentum=momentum, run_dir=f"{momentum}", **settings
                )
            )
            data = directory.load_data_of_run(run.run_dir)
            vae = directory.load(run.run_dir)
            vae.compile()
            kept = vae.evaluate(data.validation, verbose=0, return_dict=True)
            top = directory.best(run.history)
            self.assertAllClose(kept["elbo"], top["val_elbo"], 1e-5)
            rows[momentum] = run.history
        for plain, average in zip(*rows.values(), strict=True):
            # The training is the same; what is validated is behind it.
            self.assertAllClose(plain["elbo"], average["elbo"], 1e-6)
            self.assertLess(average["val_elbo"], plain["val_elbo"] - 0.1)


if __name__ == "__main__":
    tf.test.main()
