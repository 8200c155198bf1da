import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from small import IMAGE_SHAPE, combined, random_bits, small_vae

import vae_tf
from vae_tf import feeds

BITS = random_bits(12)


def compiled(vae=None, optimizer="sgd", jit_compile=False, **kwargs):
    vae = vae or small_vae()
    vae.compile(optimizer, jit_compile=jit_compile, **kwargs)
    return vae


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number]


class Loader:
    """What torch's DataLoader is to a feed: it can be gone through again."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def dataset(batches, **signature):
    signature = signature or {
        "output_signature": tf.TensorSpec((None, *IMAGE_SHAPE))
    }
    return tf.data.Dataset.from_generator(lambda: iter(batches), **signature)


FEEDS = {
    "dataset": dataset,
    "unknown_rank": lambda batches: dataset(batches, output_types=tf.float32),
    "labelled": lambda batches: dataset(batches).map(
        lambda x: (x, tf.zeros(tf.shape(x)[0], tf.int64))
    ),
    "dicts": lambda batches: dataset(batches).map(
        lambda x: {"image": x, "label": tf.fill(tf.shape(x)[:1], "a")}
    ),
    "py_dataset": Batches,
    "generator": lambda batches: (batch for batch in batches),
}
WRONG = {
    "grey": (0.3 * BITS, "with values from 0.3 to 0.3"),
    "of_255": (255 * BITS, "with values from 255 to 255"),
    "nan": (BITS * np.nan, "none of them a number"),
    "negative": (-BITS, "with values from -1 to -1"),
}


class FeedsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        *[(name, {"run_eagerly": True}) for name in FEEDS]
    )
    def test_every_feed_trains_on_its_images(self, feed, settings):
        self.assert_trains_on_its_images(feed, settings)

    @parameterized.parameters("labelled", "dicts")
    @pytest.mark.slow
    def test_the_compiled_loop_trains_on_its_images(self, feed):
        self.assert_trains_on_its_images(
            feed, {"steps_per_execution": 4, "jit_compile": True}
        )

    def assert_trains_on_its_images(self, feed, settings):
        batches = np.split(BITS, 3)
        expected = compiled(run_eagerly=True)
        for batch in batches:
            expected.train_on_batch(batch)
        vae = compiled(**settings)
        vae.fit(FEEDS[feed](batches), shuffle=False, verbose=0)
        self.assertEqual(int(vae.optimizer.iterations), 3)
        for ours, theirs in zip(vae.get_weights(), expected.get_weights()):
            self.assertAllClose(ours, theirs, 1e-4, 1e-5)

    @parameterized.product(feed=list(FEEDS), wrong=list(WRONG))
    def test_the_first_batch_is_looked_at(self, feed, wrong):
        batches = [WRONG[wrong][0], BITS]
        vae = compiled()
        with self.assertRaisesRegex(vae_tf.UserError, "images: expected"):
            vae.fit(FEEDS[feed](batches), verbose=0)
        self.assertEqual(int(vae.optimizer.iterations), 0)

    @parameterized.product(feed=list(FEEDS), wrong=["grey", "nan"])
    def test_a_later_batch_is_counted_in_the_step(self, feed, wrong):
        images, values = WRONG[wrong]
        batches = [BITS, BITS, images]
        pixels = int(np.sum(~np.isin(images, (0, 1))))
        vae = compiled(run_eagerly=True)
        with (
            self.assertRaisesRegex(
                vae_tf.UserError,
                f"pixels 0 or 1, received {pixels} others in 12 of 36 images, "
                f"{values}",
            ),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            vae.fit(FEEDS[feed](batches), epochs=2, shuffle=False, verbose=0)

    def test_in_the_compiled_loop(self):
        images, values = WRONG["of_255"]
        vae = compiled(steps_per_execution=4, jit_compile=True)
        with self.assertRaisesRegex(vae_tf.UserError, values):
            vae.fit(dataset([BITS, BITS, images]), verbose=0)
        # What was wrong is said once, and forgotten.
        vae.fit(dataset([BITS, BITS]), verbose=0)

    @parameterized.parameters(*WRONG)
    def test_in_validation_and_on_their_own(self, wrong):
        images, values = WRONG[wrong]
        batches = dataset([BITS, BITS, images])
        vae = compiled(run_eagerly=True)
        with self.assertRaisesRegex(vae_tf.UserError, values):
            vae.fit(BITS, validation_data=batches, verbose=0)
        with self.assertRaisesRegex(vae_tf.UserError, values):
            vae.evaluate(dataset([BITS, BITS, images]), verbose=0)
        for act in (vae.train_on_batch, vae.test_on_batch):
            with self.assertRaisesRegex(vae_tf.UserError, "images: expected"):
                act(images)
        vae.evaluate(BITS, verbose=0)

    @parameterized.parameters(
        ("continuous_bernoulli", "interval", 1.5, r"in \[0, 1\]"),
        ("discretized_logistic", "levels", 0.3 / 255, "k/255"),
    )
    def test_what_is_wrong_depends_on_the_likelihood(
        self, likelihood, support, offset, words
    ):
        vae = combined(likelihood)
        self.assertEqual(vae.support, support)
        vae = compiled(vae, run_eagerly=True)
        with self.assertRaisesRegex(vae_tf.UserError, words):
            vae.fit(dataset([BITS, BITS + offset]), verbose=0)
        levels = np.round(0.4 * 255 * BITS) / 255
        compiled(combined(likelihood), run_eagerly=True).fit(levels, verbose=0)

    def test_predict_takes_grey_images_and_no_others(self):
        vae = small_vae()
        for feed in (0.3 * BITS, Batches([0.3 * BITS])):
            self.assertAllClose(
                vae.predict(feed, verbose=0), vae(0.3 * BITS), 1e-5
            )
        for feed in (255 * BITS, Batches([255 * BITS]), dataset([255 * BITS])):
            with self.assertRaisesRegex(
                vae_tf.UserError, r"values in \[0, 1\]"
            ):
                vae.predict(feed, verbose=0)

    def test_a_loader_is_looked_at_and_a_generator_keeps_its_first_batch(self):
        first, feed = feeds.first_of(Loader([BITS[:1], BITS[1:]]))
        self.assertAllEqual(first, BITS[:1])
        self.assertLen(list(feed), 2)
        first, feed = feeds.first_of(x for x in (BITS[:1], BITS[1:]))
        self.assertIsInstance(feed, types.GeneratorType)  # as Keras wants it
        self.assertAllEqual(np.concatenate([x for (x,) in feed]), BITS)
        for none in (Loader([]), iter(()), Batches([])):
            with self.assertRaisesRegex(vae_tf.UserError, "at least one batch"):
                feeds.first_of(none)

    @parameterized.named_parameters(
        ("plain", {}), ("loop", {"jit_compile": True, "steps_per_execution": 4})
    )
    def test_what_a_callback_evaluates_is_not_what_fit_validates(self, loop):
        source = np.concatenate([BITS, 1 - BITS, BITS[::-1], 1 - BITS])
        data = vae_tf.load_data(images=source[..., 0], batch_size=5)
        vae = compiled(optimizer=keras.optimizers.SGD(0.0), **loop)
        found = []
        for other in (None, data.test, BITS, data.in_order("test", 2, 3)):

            def look(epoch, logs, other=other):
                if other is not None:
                    vae.evaluate(other, verbose=0)

            history = vae.fit(
                data.train,
                validation_data=data.validation,
                epochs=2,
                verbose=0,
                callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=look)],
            ).history
            found += history["val_elbo"]
            again = vae.evaluate(data.validation, verbose=0, return_dict=True)
            found.append(again["elbo"])
        self.assertAllClose(found, np.full_like(found, found[0]), 1e-6)

    def test_callbacks_in_a_list_of_keras(self):
        seen = []
        each = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(epoch)
        )
        vae = compiled(optimizer=keras.optimizers.SGD(1e30))
        listed = keras.callbacks.CallbackList(
            [each], add_history=True, model=vae, epochs=2, steps=3
        )
        with self.assertWarnsRegex(UserWarning, "loss: expected a finite"):
            vae.fit(BITS, batch_size=1, epochs=9, verbose=0, callbacks=listed)
        self.assertEqual(seen, [0])

    def test_batches_without_end(self):
        class Endless(Batches):
            num_batches = None

            def __getitem__(self, number):
                return BITS[:4], np.zeros(4)

        vae = compiled()
        vae.fit(Endless([]), steps_per_epoch=3, verbose=0, shuffle=False)
        self.assertEqual(int(vae.optimizer.iterations), 3)
        with self.assertRaisesRegex(vae_tf.UserError, "a dataset that ends"):
            vae.adapt(Endless([]))

    def test_what_was_interrupted_leaves_nothing_to_the_next_call(self):
        def stop(batch, logs):
            if batch == 1:
                raise KeyboardInterrupt

        vae = compiled()
        for pass_over in (
            lambda data: vae.fit(
                data,
                callbacks=[
                    vae_tf.Health(),
                    keras.callbacks.LambdaCallback(on_train_batch_end=stop),
                ],
                verbose=0,
            ),
            lambda data: vae.evaluate(
                data,
                callbacks=[
                    keras.callbacks.LambdaCallback(on_test_batch_end=stop)
                ],
                verbose=0,
            ),
        ):
            with self.assertRaises(KeyboardInterrupt):
                pass_over(dataset([BITS, 255 * BITS, BITS]))
            self.assertIsNone(vae.guard)
            vae.evaluate(BITS, verbose=0)  # Of these nothing is refused.

    def test_eager_execution_may_be_asked_for_after_compile(self):
        class Recording(vae_tf.VAE):
            def train_step(self, data):
                eager.append(tf.executing_eagerly())
                return super().train_step(data)

        eager = []
        vae = small_vae()
        vae = compiled(
            Recording(vae.encoder, vae.decoder),
            jit_compile=True,
            steps_per_execution=4,
        )
        vae.run_eagerly = True
        vae.fit(BITS, batch_size=4, verbose=0)
        self.assertEqual(eager, [True] * 3)

    def test_no_images(self):
        for empty in (BITS[:0], tf.data.Dataset.from_tensor_slices(BITS[:0])):
            with self.assertRaisesRegex(vae_tf.UserError, "at least one batch"):
                compiled().fit(empty, verbose=0)
        with self.assertRaisesRegex(vae_tf.UserError, "at least one batch"):
            small_vae().elbo(BITS[:0], seed=0)
        wrong = tf.data.Dataset.from_tensor_slices({"pixels": BITS}).batch(4)
        with self.assertRaisesRegex(
            vae_tf.UserError, "dicts with 'image', received dicts with pixels"
        ):
            compiled().fit(wrong, verbose=0)

    @parameterized.parameters("flat", "ragged", "words")
    def test_no_shape_of_images(self, kind):
        images = {
            "flat": BITS.reshape(12, -1),
            "ragged": [[1.0], [1.0, 0.0]],
            "words": np.array(["a", "b"]),
        }[kind]
        with self.assertRaisesRegex(
            vae_tf.UserError, r"expected shape \('B', 4, 3, 1\), received"
        ):
            small_vae().check_images(images)


class TargetsTest(parameterized.TestCase, tf.test.TestCase):
    def test_the_denoising_criterion(self):
        # E_q(z|noisy)[log p(clean|z)] - KL(q(z|noisy) || p(z))
        vae, noisy = small_vae(), 0.2 + 0.6 * BITS
        noise = np.random.default_rng(0).standard_normal((3, 12, 2))
        noise = tf.constant(noise, tf.float32)
        posterior = vae.encoder(noisy)
        z = posterior.mean() + posterior.stddev() * noise
        reconstruction = tf.reduce_mean(vae.decoder(z).log_prob(BITS), 0)
        found = vae.elbo_terms(noisy, noise, BITS)
        self.assertAllClose(found.reconstruction, reconstruction, 1e-5)
        self.assertAllClose(
            found.kl, vae.elbo_terms(noisy, noise, noisy).kl, 1e-5
        )

    @pytest.mark.slow
    def test_fit_learns_the_targets(self):
        self.assert_fit_learns_the_targets(jit_compile=False)

    @pytest.mark.slow
    def test_the_compiled_loop_learns_the_targets(self):
        self.assert_fit_learns_the_targets(jit_compile=True)

    def assert_fit_learns_the_targets(self, jit_compile):
        # White in, black out: only y says so.
        white, black = np.ones_like(BITS), np.zeros_like(BITS)
        optimizer = keras.optimizers.Adam(0.1)
        vae = compiled(
            optimizer=optimizer,
            jit_compile=jit_compile,
            steps_per_execution=4 if jit_compile else 1,
        )
        vae.fit(
            white, black, epochs=40, verbose=0, validation_data=(white, black)
        )
        self.assertAllLess(vae.predict(white, verbose=0), 0.1)
        right = vae.evaluate(white, black, verbose=0, return_dict=True)["elbo"]
        wrong = vae.evaluate(white, verbose=0, return_dict=True)["elbo"]
        self.assertGreater(right, wrong + 10)
        right = vae.elbo(white, 0, targets=black)
        self.assertAllGreater(right - vae.elbo(white, 0), 10.0)

    def test_targets_and_not_inputs_need_probability(self):
        compiled().fit(0.5 * BITS, BITS, verbose=0)
        with self.assertRaisesRegex(vae_tf.UserError, "k/1 with whole k"):
            compiled().fit(BITS, 0.5 * BITS, verbose=0)
        with self.assertRaisesRegex(vae_tf.UserError, r"values in \[0, 1\]"):
            compiled().fit(2 * BITS, BITS, verbose=0)

    def test_weights_are_refused(self):
        ones = np.ones(12)
        for act in (
            lambda: compiled().fit(BITS, sample_weight=ones),
            lambda: compiled().fit(BITS, ones, class_weight={1: 2.0}),
            lambda: compiled().fit(
                tf.data.Dataset.from_tensors((BITS, BITS, ones)), verbose=0
            ),
            lambda: compiled().evaluate(
                tf.data.Dataset.from_tensors((BITS, BITS, ones)), verbose=0
            ),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, "sample_weight, cla"):
                act()

    def test_arguments_by_place_as_keras_takes_them(self):
        count = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: epochs.append(epoch)
        )
        epochs, vae = [], compiled(run_eagerly=True)
        # x, y, batch size, epochs, verbosity, callbacks.
        vae.fit(BITS, None, 4, 2, 0, [count], sample_weight=None)
        self.assertEqual(epochs, [0, 1])
        self.assertEqual(int(vae.optimizer.iterations), 2 * 3)
        self.assertLen(vae.evaluate(BITS, None, 4, 0), 4)

    def test_a_compiled_loss_or_metric_is_refused(self):
        for given in (
            {"loss": "mse"},
            {"metrics": ["mae"]},
            {"weighted_metrics": ["mae"]},
        ):
            with self.assertRaisesRegex(vae_tf.UserError, "bound on log p"):
                small_vae().compile("adam", **given)


class StopsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(1, 4)
    def test_a_bound_that_is_no_number_ends_training(self, steps):
        vae = compiled(
            optimizer=keras.optimizers.SGD(1e30),
            steps_per_execution=steps,
            jit_compile=steps > 1,
        )
        with self.assertWarnsRegex(UserWarning, "loss: expected a finite"):
            history = vae.fit(BITS, batch_size=1, epochs=9, verbose=0)
        self.assertLen(history.epoch, 1)

    def test_keras_own_callback_has_the_word_first(self):
        vae = compiled(optimizer=keras.optimizers.SGD(1e30))
        callbacks = [keras.callbacks.TerminateOnNaN()]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            vae.fit(
                BITS, batch_size=1, epochs=9, verbose=0, callbacks=callbacks
            )

    def test_adafactor_that_would_end_in_nan(self):
        adafactor = keras.optimizers.Adafactor
        with self.assertRaisesRegex(vae_tf.UserError, "epsilon_1 >= 1e-16"):
            small_vae().compile(adafactor())
        # A pixel that never varies gives weights whose gradient is 0.
        vae = compiled(optimizer=adafactor(1e-3, epsilon_1=1e-16))
        constant = BITS * (np.arange(12).reshape(1, 4, 3, 1) > 5)
        vae.fit(constant, batch_size=1, epochs=2, verbose=0)
        for weights in vae.get_weights():
            self.assertAllInRange(weights, -100.0, 100.0)


class AdaptTest(tf.test.TestCase):
    def test_of_any_feed_that_can_be_gone_through_again(self):
        biases = []
        for feed in (
            BITS,
            dataset(np.split(BITS, 3)),
            Batches(np.split(BITS, 3)),
            tf.data.Dataset.from_tensor_slices({"image": BITS}).batch(5),
            tf.data.Dataset.from_tensor_slices((1 - BITS, BITS)).batch(5),
        ):
            vae = small_vae()
            vae.adapt(feed)
            biases.append(vae.decoder.likelihood.bias.numpy())
        for bias in biases:
            self.assertAllClose(bias, biases[0], 1e-6)

    def test_of_one_that_does_not_end_or_cannot(self):
        for feed, message in (
            (dataset([BITS]).repeat(), "expected a dataset that ends"),
            (iter([BITS]), "gone through again"),
        ):
            with self.assertRaisesRegex(vae_tf.UserError, message):
                small_vae().adapt(feed)
