import functools
import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from small import combined, random_bits, small_vae

import vae_tf
from vae_tf import executions, passes
from vae_tf.config import SPLITS
from vae_tf.data.splits import Source
from vae_tf.passes import Shared

IMAGES = random_bits(22)


def dataset():
    """Batches of 4, 4, 4, 4, 4, 2 images."""
    return tf.data.Dataset.from_tensor_slices(IMAGES).batch(4)


def adam():
    # An epsilon above the rounding of gradients, which Adam divides by theirs.
    return keras.optimizers.Adam(1e-2, epsilon=1e-4)


def sgd():
    # XLA compiles its step in half the time.
    return keras.optimizers.SGD(1e-2)


def trained(
    data=None,
    epochs=2,
    callbacks=(),
    make=small_vae,
    optimizer=sgd,
    **settings,
):
    """A model after `fit`, and its history."""
    vae = make()
    vae.compile(optimizer(), **settings)
    history = vae.fit(
        data or dataset(), epochs=epochs, verbose=0, callbacks=[*callbacks]
    ).history
    return vae, history


@functools.cache
def uncompiled():
    """What Keras' own loop makes of it; not to be changed."""
    return trained(jit_compile=False)


@functools.cache
def looped():
    """What the compiled loop makes of it; not to be changed."""
    return trained(jit_compile=True, steps_per_execution=4)


class StepsTest(parameterized.TestCase, tf.test.TestCase):
    def assert_same(self, ours, theirs):
        (vae, history), (other, other_history) = ours, theirs
        self.assertEqual(
            int(vae.optimizer.iterations), int(other.optimizer.iterations)
        )
        for one, two in zip(
            vae.weights + vae.optimizer.variables,
            other.weights + other.optimizer.variables,
        ):
            self.assertAllClose(one, two, 1e-3, 1e-5)
        self.assertAllClose(history, other_history, 1e-4)


class ExecutionsTest(StepsTest):
    def assert_takes_the_steps_of_eager_execution(self, make, optimizer=sgd):
        # Two passes of six batches, the last one short, in blocks of 4: with
        # the noise of each update, this is one sequence of updates, however it
        # is executed.
        slow = trained(make=make, optimizer=optimizer, run_eagerly=True)
        fast = trained(
            make=make,
            optimizer=optimizer,
            jit_compile=True,
            steps_per_execution=4,
        )
        self.assert_same(fast, slow)
        self.assertEqual(list(fast[1]), list(slow[1]))

    def test_the_loop_takes_the_steps_of_eager_execution(self):
        self.assert_takes_the_steps_of_eager_execution(small_vae, adam)

    @parameterized.named_parameters(
        (
            "warm_up_alternate",
            lambda: small_vae(
                objective=vae_tf.ELBO(kl_warmup_steps=7),
                train_variables="alternate",
            ),
        ),
        ("iwae", lambda: small_vae(objective=vae_tf.IWAE(3))),
        ("stl", lambda: small_vae(objective=vae_tf.ELBO(2, "stl"))),
        (
            "warm_up",
            lambda: small_vae(objective=vae_tf.ELBO(kl_warmup_steps=7)),
        ),
        ("alternate", lambda: small_vae(train_variables="alternate")),
        ("vamp", lambda: small_vae(prior="vamp")),
        (
            "iwae_vamp",
            lambda: small_vae(objective=vae_tf.IWAE(3), prior="vamp"),
        ),
        ("iaf", lambda: small_vae(posterior=vae_tf.IAF(2, 2, (8,)))),
        ("logistic", lambda: combined("discretized_logistic")),
    )
    @pytest.mark.slow
    def test_each_choice_takes_the_steps_of_eager_execution(self, make):
        self.assert_takes_the_steps_of_eager_execution(make, adam)

    @pytest.mark.slow
    def test_four_steps_in_an_execution(self):
        self.assert_same(looped(), uncompiled())

    @pytest.mark.slow
    def test_more_steps_in_an_execution_than_there_are(self):
        self.assert_same(
            trained(jit_compile=True, steps_per_execution=50), uncompiled()
        )

    @parameterized.parameters(1, 3, 5, 6)
    @pytest.mark.slow
    def test_any_number_of_steps_in_an_execution(self, steps):
        self.assert_same(
            trained(jit_compile=True, steps_per_execution=steps), uncompiled()
        )

    @pytest.mark.slow
    def test_batches_of_mixed_sizes_each_train_once(self):
        batches = np.split(IMAGES, [3, 6, 11, 14, 19])
        mixed = tf.data.Dataset.from_generator(
            lambda: iter(batches),
            output_signature=tf.TensorSpec((None, *IMAGES.shape[1:])),
        )
        fast, _ = trained(
            mixed, epochs=1, jit_compile=True, steps_per_execution=4
        )
        slow = small_vae()
        slow.compile(sgd(), jit_compile=False)
        for batch in batches:
            slow.train_on_batch(batch)
        for ours, theirs in zip(
            fast.weights + fast.optimizer.variables,
            slow.weights + slow.optimizer.variables,
        ):
            self.assertAllClose(ours, theirs, 1e-3, 1e-5)

    @pytest.mark.slow
    def test_equal_seeds_train_bit_identical_models(self):
        one, _ = looped()
        two, _ = trained(jit_compile=True, steps_per_execution=4)
        for ours, theirs in zip(one.weights, two.weights):
            self.assertAllEqual(ours, theirs)

    @pytest.mark.slow
    def test_what_keras_offers_works(self):
        # Labels, arrays, a schedule of the rate, early stopping, batch ends.
        class Count(keras.callbacks.Callback):
            ends = 0

            def on_train_batch_end(self, batch, logs=None):
                self.ends += 1
                self.last = logs["elbo"]

        count = Count()
        labelled = dataset().map(lambda x: (x, tf.zeros(tf.shape(x)[:1])))
        settings = {"jit_compile": True, "steps_per_execution": 4}
        vae, history = trained(labelled, callbacks=[count], **settings)
        self.assertEqual(count.ends, 2 * 2)
        self.assertAlmostEqual(count.last, history["elbo"][-1], places=4)
        self.assert_same((vae, history), looped())

        vae.fit(IMAGES, batch_size=4, epochs=1, verbose=0)
        self.assertEqual(int(vae.optimizer.iterations), 3 * 6)
        repeated = dataset().repeat()
        vae.fit(repeated, steps_per_epoch=8, epochs=2, verbose=0)
        self.assertEqual(int(vae.optimizer.iterations), 3 * 6 + 2 * 8)
        vae.train_on_batch(IMAGES[:4])
        self.assertEqual(int(vae.optimizer.iterations), 3 * 6 + 2 * 8 + 1)

    def test_xla_compiles_what_it_makes_faster(self):
        self.addCleanup(keras.config.set_dtype_policy, "float32")
        for network, dtype, compiled in (
            ("mlp", "float32", True),
            ("conv", "float32", False),
            ("mlp", "mixed_bfloat16", False),
        ):
            keras.config.set_dtype_policy(dtype)
            vae = combined(network=network)
            vae.compile("adam", steps_per_execution=4)
            self.assertEqual(vae.jit_compile, compiled)
            self.assertEqual(executions.suit_xla(vae), compiled)
            vae.compile("adam", jit_compile=not compiled)
            self.assertEqual(vae.jit_compile, not compiled)


class InStepTest(StepsTest):
    @parameterized.parameters(
        ("bernoulli", "threshold", "none"),
    )
    def test_images_made_in_the_step_are_those_of_the_dataset(self, *settings):
        self.assert_makes_the_images_of_the_dataset(*settings)

    @parameterized.parameters(
        ("bernoulli", "dynamic", "none"),
        ("normal", "dynamic", "uniform"),
        ("continuous_bernoulli", "none", "uniform"),
    )
    @pytest.mark.slow
    def test_other_images_made_in_the_step(self, *settings):
        self.assert_makes_the_images_of_the_dataset(*settings)

    def assert_makes_the_images_of_the_dataset(
        self, likelihood, binarization, dequantization
    ):
        grey = np.random.default_rng(0).integers(0, 5, IMAGES.shape)
        images = dict.fromkeys(SPLITS, grey.astype(np.uint8))
        source = Source("grey", "grey", 5, images, dict.fromkeys(SPLITS))
        histories = []
        for plain in (False, True):
            data = vae_tf.Data(source, binarization, 4, 0, dequantization)
            train = data.train
            if plain:  # A map makes it a dataset like any other.
                train = train.map(lambda x: x)
            with mock.patch.object(
                passes, "Passes", wraps=passes.Passes
            ) as taken_apart:
                histories.append(
                    trained(
                        train,
                        make=lambda: combined(likelihood),
                        jit_compile=not plain,
                        steps_per_execution=4,
                    )
                )
            self.assertNotEqual(taken_apart.called, plain)
        self.assert_same(*histories)

    def test_validation_in_the_compiled_loop_is_that_of_eager_execution(self):
        grey = np.random.default_rng(0).integers(0, 5, (11, *IMAGES.shape[1:]))
        images = dict.fromkeys(SPLITS, grey.astype(np.uint8))
        source = Source("grey", "grey", 5, images, dict.fromkeys(SPLITS))
        data = vae_tf.Data(source, "static", 4, 0)
        vae = combined("bernoulli")
        found = []
        for settings in (
            {"jit_compile": True, "steps_per_execution": 4},
            {"run_eagerly": True},
        ):
            vae.compile(**settings)
            # Batches of 4, 4 and 3, made in the step, and given to it.
            for held in (data.validation, data.validation.map(lambda x: x)):
                found.append(vae.evaluate(held, verbose=0, return_dict=True))
        for other in found[1:]:
            self.assertAllClose(found[0], other, 1e-5, 1e-5)

    @pytest.mark.slow
    def test_a_model_goes_from_one_dataset_to_the_next(self):
        # Each has its own way to make images in the step.
        images = dict.fromkeys(SPLITS, IMAGES.astype(np.uint8))
        white = dict.fromkeys(SPLITS, np.ones(IMAGES.shape, np.uint8))
        ends = []
        for settings in ({"jit_compile": True}, {"run_eagerly": True}):
            data, other = (
                vae_tf.Data(
                    Source("bits", "bits", 2, x, dict.fromkeys(SPLITS)),
                    "none",
                    4,
                    0,
                ).train
                for x in (images, white)
            )
            vae = small_vae()
            vae.compile(sgd(), steps_per_execution=4, **settings)
            for batches in (data, other, dataset(), data):
                vae.fit(batches, epochs=1, verbose=0)
            vae.train_on_batch(IMAGES[:4])
            self.assertEqual(int(vae.optimizer.iterations), 4 * 6 + 1)
            ends.append(vae.get_weights())
        for ours, theirs in zip(*ends):
            self.assertAllClose(ours, theirs, 1e-3, 1e-5)


class StrategyTest(StepsTest):
    @pytest.mark.slow
    def test_a_strategy_of_tensorflow_goes_through_keras_own_function(self):
        strategy = tf.distribute.OneDeviceStrategy("cpu:0")
        with strategy.scope():
            fast = trained(jit_compile=True, steps_per_execution=4)
        self.assert_same(fast, uncompiled())
        # A model keeps the strategy that it was made under.
        images = dict.fromkeys(SPLITS, IMAGES.astype(np.uint8))
        source = Source("bits", "bits", 2, images, dict.fromkeys(SPLITS))
        vae, fast[0].stop_training = fast[0], False
        vae.fit(vae_tf.Data(source, "none", 4, 0).train, epochs=1, verbose=0)
        self.assertEqual(int(vae.optimizer.iterations), 3 * 6)

    def test_what_devices_share(self):
        numbers = tf.data.Dataset.range(7)
        whole, strategy = numbers.batch(4), tf.distribute.get_strategy()
        self.assertTrue(Shared.takes(whole, strategy))
        shared = [(int(n), list(rows)) for n, rows in Shared(whole, None)]
        self.assertEqual(shared, [(0, [0, 1, 2, 3]), (4, [4, 5, 6])])
        self.assertEqual(Shared(whole, None).cardinality(), 2)
        self.assertFalse(Shared.takes(numbers, strategy))  # It has no rows.

    def test_workers_share_what_is_the_same_in_all_of_them(self):
        # A dataset of the user's may shuffle, in each worker as it pleases.
        images = dict.fromkeys(SPLITS, IMAGES.astype(np.uint8))
        source = Source("bits", "bits", 2, images, dict.fromkeys(SPLITS))
        data = vae_tf.Data(source, "none", 4, 0)
        workers = mock.Mock()  # which have a cluster
        for ours in (data.train.in_step.elements, data.validation):
            self.assertTrue(Shared.takes(ours, workers))
            self.assertFalse(Shared.takes(ours.shuffle(3), workers))

    @pytest.mark.slow
    def test_two_devices_take_the_steps_of_one(self):
        self.assert_takes_the_steps_of_one_device(2, "alternate_free_bits")

    @parameterized.parameters(1, 2, 4)
    @pytest.mark.slow
    def test_n_devices_take_the_steps_of_one(self, devices):
        self.assert_takes_the_steps_of_one_device(devices)

    def assert_takes_the_steps_of_one_device(self, devices, *models):
        # Gradients are summed over devices, and each draws the noise of its
        # own images: the update is that of one device with the whole batch.
        tests = pathlib.Path(__file__).parent
        result = subprocess.run(
            [sys.executable, tests / "replicas.py", str(devices), *models],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(tests.parent)},
        )
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])
        apart = json.loads(result.stdout.splitlines()[-1])
        self.assertLen(apart, len(models) or 3)
        for name, difference in apart.items():
            self.assertLess(difference, 1e-5, name)
