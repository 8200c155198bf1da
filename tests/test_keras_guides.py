"""Keras' own guides to `fit`, callbacks, steps of one's own and saving, and
TensorFlow's guide to checkpoints, followed with this model.
"""

import csv
import functools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from small import combined, random_bits, small_vae
from tensorboard.backend.event_processing import event_accumulator

import vae_tf
from vae_tf.noise import key, standard_normal

IMAGES = random_bits(12)
LABELS = np.arange(12)
NAMES = ["elbo", "kl", "loss", "reconstruction"]
RATE = 0.1


def compiled(vae=None, optimizer=None, jit_compile=False, **kwargs):
    """Plain gradient descent, where nothing else is said, and no XLA."""
    vae = vae or small_vae()
    optimizer = optimizer or keras.optimizers.SGD(RATE)
    vae.compile(optimizer, jit_compile=jit_compile, **kwargs)
    return vae


def eager(vae=None, optimizer=None, **kwargs):
    """The same, of which a few steps take less time than tracing them does."""
    return compiled(vae, optimizer, run_eagerly=True, **kwargs)


def fit(vae, x=IMAGES, y=None, **kwargs):
    """History of batches of 4 in their order."""
    if isinstance(x, np.ndarray):
        kwargs = {"batch_size": 4, "shuffle": False} | kwargs
    return vae.fit(x, y, verbose=0, **kwargs).history


def watched(*callbacks, vae=None, epochs=2):
    """History of so many epochs of one batch, with their validation."""
    return fit(
        vae or eager(),
        epochs=epochs,
        batch_size=12,
        validation_data=IMAGES,
        callbacks=[*callbacks],
    )


def stepped(weights, slopes, rate=RATE):
    """Where a step of plain gradient descent leads."""
    return [weight - rate * slope for weight, slope in zip(weights, slopes)]


def apart(ours, theirs):
    """The largest difference of any weight."""
    return max(np.abs(one - two).max() for one, two in zip(ours, theirs))


def adam(seed=0):
    return eager(small_vae(seed=seed), keras.optimizers.Adam(1e-2))


def weights_and_slots(vae):
    """Everything that a next step depends on, and the metrics."""
    return values(vae.variables + vae.optimizer.variables)


def values(variables):
    return [variable.numpy() for variable in variables]


def descent(vae, images, number=0, beta=1.0, targets=None):
    """The loss's gradients in the update of a number, and what is reported of
    each image, as they are defined.
    """
    noise = standard_normal(
        (1, len(images), 2), key("training", vae.seed, number)
    )
    with tf.GradientTape() as tape:
        terms = vae.elbo_terms(tf.constant(images), noise, targets)
        loss = -tf.reduce_mean(terms.reconstruction - beta * terms.kl)
    report = {n: t.numpy() for n, t in terms._asdict().items()}
    report["loss"] = -report["elbo"]
    return tape.gradient(loss, vae.trainable_variables), report


@functools.cache
def by_hand(size=4, betas=(1.0,)):
    """Weights after an epoch of gradient descent for each beta, and the last
    one's history, from their definitions; not to be changed.
    """
    vae, number = small_vae(), 0
    for beta in betas:
        reports = []
        for first in range(0, 12, size):
            batch = IMAGES[first : first + size]
            slopes, report = descent(vae, batch, number, beta)
            for variable, slope in zip(vae.trainable_variables, slopes):
                variable.assign_sub(RATE * slope)
            reports.append(report)
            number += 1
    history = {
        name: np.mean(np.concatenate([report[name] for report in reports]))
        for name in NAMES
    }
    return values(vae.trainable_variables), history


class GuideTest(parameterized.TestCase, tf.test.TestCase):
    def assert_weights(self, vae, expected, rtol=1e-4, atol=1e-5):
        found = values(vae.trainable_variables)
        self.assertEqual(len(found), len(expected))
        for ours, theirs in zip(found, expected):
            self.assertAllClose(ours, theirs, rtol, atol)

    def assert_identical(self, ours, theirs):
        self.assertEqual(len(ours), len(theirs))
        for one, two in zip(ours, theirs):
            self.assertAllEqual(one, two)

    def assert_means(self, logs, report, prefix="", rtol=1e-5):
        """That `logs` has the means of what is reported of each image."""
        for name in NAMES:
            expected = np.mean(report[name])
            found = np.squeeze(logs[prefix + name])
            self.assertAllClose(found, expected, rtol)

    def path(self, name):
        return f"{self.create_tempdir().full_path}/{name}"


class CompileTest(GuideTest):
    """Training and evaluation with the built-in methods: `compile`."""

    @parameterized.named_parameters(
        ("eagerly", {"run_eagerly": True}),
        ("in_a_graph", {}),
        ("by_xla_as_it_chooses", {"jit_compile": "auto"}),
        ("two_at_once", {"steps_per_execution": 2}),
    )
    def test_every_way_of_running_a_step_is_gradient_descent(self, options):
        vae = compiled(**options)
        history = fit(vae)
        weights, expected = by_hand()
        self.assert_weights(vae, weights)
        self.assertEqual(sorted(history), NAMES)
        self.assert_means(history, expected)

    def test_auto_is_xla_for_products_of_matrices_alone(self):
        for network, expected in (("mlp", True), ("conv", False)):
            vae = compiled(combined(network=network), jit_compile="auto")
            self.assertEqual(vae.jit_compile, expected)

    def test_an_optimizer_by_name_is_one_at_its_defaults(self):
        one, two = small_vae(), small_vae()
        one.compile("adam", run_eagerly=True)
        two.compile(keras.optimizers.Adam(), run_eagerly=True)
        for vae in (one, two):
            vae.train_on_batch(IMAGES)
        self.assert_identical(one.get_weights(), two.get_weights())
        # Adam's first step is the learning rate's, whatever the gradient's.
        moved = one.trainable_variables[0] - small_vae().trainable_variables[0]
        self.assertAllClose(np.abs(moved).max(), 0.001, 1e-3)

    @parameterized.named_parameters(
        ("weight_decay", {"weight_decay": 0.5}),
        ("clipvalue", {"clipvalue": 0.01}),
        ("clipnorm", {"clipnorm": 0.05}),
        ("global_clipnorm", {"global_clipnorm": 0.05}),
    )
    def test_an_option_of_the_optimizer_is_in_its_step(self, options):
        vae = eager(optimizer=keras.optimizers.SGD(RATE, **options))
        slopes, _ = descent(vae, IMAGES)
        plain = slopes
        if "clipvalue" in options:
            slopes = [np.clip(slope, -0.01, 0.01) for slope in slopes]
        if "clipnorm" in options:
            slopes = [
                slope * min(1, 0.05 / np.linalg.norm(slope)) for slope in slopes
            ]
        if "global_clipnorm" in options:
            norm = np.sqrt(sum(np.sum(np.square(slope)) for slope in slopes))
            slopes = [slope * 0.05 / norm for slope in slopes]
        before = values(vae.trainable_variables)
        decay = options.get("weight_decay", 0.0)
        slopes = [decay * w + slope for w, slope in zip(before, slopes)]
        vae.train_on_batch(IMAGES)
        self.assert_weights(vae, stepped(before, slopes), 1e-5, 1e-6)
        # It is another step than without the option.
        self.assertGreater(apart(slopes, plain), 0.1)

    def test_gradients_are_accumulated_over_batches(self):
        vae = eager(
            optimizer=keras.optimizers.SGD(RATE, gradient_accumulation_steps=3)
        )
        before = values(vae.trainable_variables)
        # Each of the three has noise of its own, though none is an update.
        three = [
            descent(vae, IMAGES[4 * i : 4 * i + 4], i)[0] for i in range(3)
        ]
        fit(vae)
        self.assertEqual(int(vae.optimizer.iterations), 1)
        self.assert_weights(
            vae, [w - RATE * sum(s) / 3 for w, *s in zip(before, *three)]
        )

    def test_a_learning_rate_schedule_counts_updates(self):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay
        vae = eager(optimizer=keras.optimizers.SGD(schedule([0], [0.1, 0.0])))
        before = values(vae.trainable_variables)
        slopes, _ = descent(vae, IMAGES[:4])
        fit(vae)
        self.assert_weights(vae, stepped(before, slopes))

    def test_a_scaled_loss_gives_the_same_step(self):
        scaled = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(RATE), initial_scale=1024.0
        )
        vae = compiled(optimizer=scaled)
        history = fit(vae)
        self.assert_weights(vae, by_hand()[0])
        self.assertAllClose(history["loss"], [by_hand()[1]["loss"]], 1e-5)

    def test_auto_scale_loss_is_for_half_precision(self):
        keras.config.set_dtype_policy("mixed_float16")
        self.addCleanup(keras.config.set_dtype_policy, "float32")
        automatic = eager()
        scaled = keras.optimizers.LossScaleOptimizer
        self.assertIsInstance(automatic.optimizer, scaled)
        without = eager(auto_scale_loss=False)
        self.assertNotIsInstance(without.optimizer, scaled)
        before = values(automatic.trainable_variables)
        for vae in (automatic, without):
            vae.train_on_batch(IMAGES)
        self.assert_weights(
            automatic, values(without.trainable_variables), 1e-3, 1e-4
        )
        self.assertNotAllClose(automatic.trainable_variables[0], before[0])

    @parameterized.parameters(
        {"loss": "mse"},
        {"loss": {"image": "mse"}},
        {"loss_weights": [1.0]},
        {"metrics": ["accuracy"]},
        {"weighted_metrics": [keras.metrics.MeanSquaredError()]},
    )
    def test_the_loss_is_the_objective_and_no_other(self, **given):
        (name,) = given
        with self.assertRaisesRegex(vae_tf.UserError, f"^{name}: expected no"):
            small_vae().compile("adam", **given)
        # By place, too.
        with self.assertRaisesRegex(vae_tf.UserError, "^loss: expected none"):
            small_vae().compile("adam", "mse")


class Batches(keras.utils.PyDataset):
    """The guide's `PyDataset`, of pairs of images and labels."""

    def __len__(self):
        return 3

    def __getitem__(self, number):
        rows = slice(4 * number, 4 * number + 4)
        return IMAGES[rows], LABELS[rows]


def dataset(y=LABELS):
    return tf.data.Dataset.from_tensor_slices((IMAGES, y)).batch(4)


def generator():
    while True:
        yield from (Batches()[number] for number in range(3))


# What is fed, and what `fit` is told of it.
FEEDS = {
    "labels": lambda: (IMAGES, {"y": LABELS}),
    "one_hot_labels": lambda: (IMAGES, {"y": np.eye(12)}),
    "dataset": lambda: (dataset(), {}),
    "dataset_of_words": lambda: (dataset(list("abcdefghijkl")), {}),
    "dataset_of_dicts": lambda: (
        dataset().map(lambda x, y: {"image": x, "label": y}),
        {},
    ),
    "repeated_dataset": lambda: (dataset().repeat(), {"steps_per_epoch": 3}),
    "py_dataset": lambda: (Batches(), {}),
    "py_dataset_of_threads": lambda: (Batches(workers=2), {}),
    "generator": lambda: (generator(), {"steps_per_epoch": 3}),
}


class FeedTest(GuideTest):
    """Training and evaluation with the built-in methods: what is fed."""

    @parameterized.named_parameters(*[(name, name) for name in FEEDS])
    def test_labels_are_ignored_whatever_feeds_them(self, feed):
        images, options = FEEDS[feed]()
        vae = eager()  # compiled: test_feeds.py
        history = fit(vae, images, **({"shuffle": False} | options))
        weights, expected = by_hand()
        self.assert_weights(vae, weights)
        self.assertAllClose(history["loss"], [expected["loss"]], 1e-5)

    def test_a_dict_of_arrays_is_as_good_as_a_dataset_of_dicts(self):
        vae = eager()
        fit(
            vae,
            {"image": IMAGES, "label": LABELS},
            batch_size=4,
            shuffle=False,
        )
        self.assert_weights(vae, by_hand()[0])

    def test_a_py_dataset_may_say_num_batches_and_no_len(self):
        class Numbered(keras.utils.PyDataset):
            @property
            def num_batches(self):
                return 3

            def __getitem__(self, number):
                return Batches()[number]

        vae = eager()
        fit(vae, Numbered(), shuffle=False)
        self.assert_weights(vae, by_hand()[0])

    def test_arguments_may_be_given_by_place(self):
        # x, y, batch_size, epochs, verbose, callbacks
        seen = []
        callback = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(epoch)
        )
        vae = eager()
        vae.fit(IMAGES, LABELS, 4, 2, 0, [callback])
        self.assertEqual(seen, [0, 1])

    def test_no_weights_are_no_weights(self):
        vae = eager()
        fit(vae, sample_weight=None, class_weight=None)
        self.assert_weights(vae, by_hand()[0])
        for weights in (
            {"sample_weight": np.ones(12)},
            {"class_weight": {0: 1.0}},
        ):
            with self.assertRaisesRegex(vae_tf.UserError, "expected none"):
                fit(vae, y=LABELS, **weights)

    def test_evaluate_refuses_weights_as_fit_does(self):
        for labels in (LABELS, None):
            with self.assertRaisesRegex(vae_tf.UserError, "expected none"):
                eager().evaluate(
                    IMAGES, labels, sample_weight=np.ones(12), verbose=0
                )

    def test_a_refused_dataset_is_refused_before_a_step_again(self):
        vae, grey = eager(), dataset().map(lambda x, y: 0.5 * x)
        for _ in range(2):
            with self.assertRaisesRegex(vae_tf.UserError, "images: expected"):
                fit(vae, grey)
            self.assertEqual(int(vae.optimizer.iterations), 0)

    def test_y_of_the_images_shape_is_the_target(self):
        noisy = 0.2 + 0.6 * IMAGES
        vae = eager()
        slopes, report = descent(vae, noisy, targets=IMAGES)
        before = values(vae.trainable_variables)
        history = fit(
            vae,
            noisy,
            IMAGES,
            batch_size=12,
            validation_data=(noisy, IMAGES),
        )
        self.assert_weights(vae, stepped(before, slopes))
        found = vae.test_on_batch(noisy, IMAGES, return_dict=True)
        self.assert_means(history, report)
        self.assert_means(history, found, "val_")
        # Clean images as their own targets are worth something else.
        own = vae.evaluate(IMAGES, verbose=0)[0]
        self.assertNotAllClose(history["val_loss"], [own], 1e-3)

    def test_a_repeated_dataset_goes_on_where_the_last_epoch_stopped(self):
        vae, other = eager(), eager()
        history = fit(vae, dataset().repeat(), steps_per_epoch=2, epochs=3)
        self.assertLen(history["loss"], 3)
        fit(other, dataset().repeat(2))
        self.assert_weights(vae, values(other.trainable_variables))
        self.assertEqual(int(vae.optimizer.iterations), 6)

    @parameterized.named_parameters(
        ("labels", lambda: ((IMAGES, LABELS), {})),
        ("dataset", lambda: (dataset(), {})),
        ("py_dataset", lambda: (Batches(), {})),
        ("generator", lambda: (generator(), {"validation_steps": 3})),
    )
    def test_validation_reports_what_evaluate_reports(self, feed):
        data, options = feed()
        vae = eager()
        history = fit(vae, validation_data=data, **options)
        found = vae.evaluate(IMAGES, batch_size=4, verbose=0, return_dict=True)
        self.assertEqual(sorted(found), NAMES)
        self.assert_means(history, found, "val_", 1e-6)

    def test_validation_is_every_so_often_and_of_so_many_batches(self):
        vae = eager()
        history = fit(
            vae,
            validation_data=IMAGES,
            validation_freq=2,
            validation_steps=1,
            validation_batch_size=5,
            epochs=4,
            batch_size=12,
        )
        self.assertLen(history["val_loss"], 2)
        found = vae.evaluate(IMAGES[:5], verbose=0)[0]
        self.assertAllClose(history["val_loss"][-1], found, 1e-6)

    def test_validation_split_holds_out_the_last_images(self):
        vae, other = eager(), eager()
        history = fit(vae, y=LABELS, validation_split=0.25)
        expected = fit(other, IMAGES[:9], validation_data=IMAGES[9:])
        self.assertAllClose(history, expected, 1e-6)
        self.assert_weights(vae, values(other.trainable_variables))


class ReportTest(GuideTest):
    """Training and evaluation with the built-in methods: what is reported."""

    def test_batches_alone_report_the_bound_and_its_terms(self):
        vae = eager()
        _, report = descent(vae, IMAGES)
        shown = vae.train_on_batch(IMAGES, LABELS, return_dict=True)
        self.assert_means(shown, report)
        tested = vae.test_on_batch(IMAGES, LABELS, return_dict=True)
        whole = vae.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
        self.assertAllClose(tested, whole, 1e-6)
        loc, scale = vae.encoder.predict(IMAGES, verbose=0)
        kl = 0.5 * np.sum(scale**2 + loc**2 - 1 - 2 * np.log(scale), -1)
        self.assertAllClose(tested["kl"], np.mean(kl), 1e-5)
        self.assertAllClose(
            tested["elbo"], tested["reconstruction"] - tested["kl"], 1e-5
        )
        self.assertAllClose(tested["loss"], -tested["elbo"])

    def test_a_list_of_numbers_is_in_the_order_of_the_names(self):
        vae = eager(like_small(Bright))
        found = vae.evaluate(IMAGES, verbose=0, return_dict=True)
        listed = vae.evaluate(IMAGES, verbose=0)
        self.assertEqual(dict(zip(vae.metrics_names, listed)), found)

    @parameterized.named_parameters(
        ("beta", {"beta": 4.0}),
        ("warm_up", {"kl_warmup_steps": 9}),
        ("free_bits", {"free_bits": 1.0}),
    )
    def test_what_weighs_the_kl_divergence_is_not_in_the_report(self, weights):
        vae = eager(small_vae(objective=vae_tf.ELBO(**weights)))
        slopes, report = descent(vae, IMAGES)
        before = values(vae.trainable_variables)
        shown = vae.train_on_batch(IMAGES, return_dict=True)
        self.assertEqual(sorted(shown), NAMES)
        self.assert_means(shown, report)
        # It is in the step.
        unlike = stepped(before, slopes)
        self.assertGreater(apart(vae.trainable_variables, unlike), 1e-3)

    def test_with_iwae_the_loss_is_minus_that_bound(self):
        vae = eager(small_vae(objective=vae_tf.IWAE(5)))
        found = vae.evaluate(IMAGES, verbose=0, return_dict=True)
        self.assertEqual(sorted(found), sorted([*NAMES, "iwae"]))
        # Of the first batch of a pass over validation images.
        noise = standard_normal((5, 12, 2), key("validation", 0, 0))
        log_weights = vae.draws(tf.constant(IMAGES), noise).log_weights
        bound = tf.reduce_logsumexp(log_weights, 0) - np.log(5)
        self.assertAllClose(found["iwae"], np.mean(bound), 1e-5)
        self.assertAllClose(found["loss"], -found["iwae"])
        self.assertGreater(found["iwae"], found["elbo"] + 0.05)

    def test_predict_gives_means(self):
        vae = small_vae()
        q = vae.encoder(IMAGES)
        loc, scale = vae.encoder.predict(IMAGES, verbose=0)
        self.assertAllClose(loc, q.mean(), 1e-5)
        self.assertAllClose(scale, q.stddev(), 1e-5)
        mean = vae.decoder.predict(loc, verbose=0)
        self.assertAllClose(mean, vae.decoder(loc).mean(), 1e-5)
        for found in (
            vae.predict(IMAGES, batch_size=5, verbose=0),
            vae.predict(dataset(), verbose=0),
            vae.predict_on_batch(IMAGES),
        ):
            self.assertAllClose(found, mean, 1e-5)


def then_worse(epoch):
    """A learning rate with which the fourth epoch undoes what the first three
    have learned.
    """
    return RATE if epoch < 3 else -5 * RATE


class CallbackTest(GuideTest):
    """Writing your own callbacks, and Keras' own at their defaults."""

    def test_each_hook_hears_what_the_guide_says(self):
        heard = {}

        class Hearing(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                heard["train_batch"] = logs

            def on_test_batch_end(self, batch, logs=None):
                heard["test_batch"] = logs

            def on_test_end(self, logs=None):
                heard["test"] = logs

            def on_epoch_end(self, epoch, logs=None):
                heard["epoch"] = logs

            def on_train_end(self, logs=None):
                heard["train"] = logs

            def on_predict_batch_end(self, batch, logs=None):
                heard["predict_batch"] = logs

        vae = eager()
        history = fit(vae, validation_data=IMAGES, callbacks=Hearing())
        vae.predict(IMAGES, verbose=0, callbacks=[Hearing()])
        for name in ("train_batch", "test_batch", "test"):
            self.assertEqual(sorted(heard[name]), NAMES, name)
        for name in ("epoch", "train"):
            self.assertAllClose(
                {k: [v] for k, v in heard[name].items()}, history
            )
        self.assertAllClose(heard["predict_batch"]["outputs"], vae(IMAGES))
        # At the end of an epoch, a batch's numbers are those of all of it.
        self.assertAllClose(heard["train_batch"]["loss"], history["loss"][0])

    @parameterized.named_parameters(
        ("a_graph", {}),
        ("a_compiled_loop", {"jit_compile": True, "steps_per_execution": 3}),
    )
    def test_beta_and_free_bits_are_set_between_epochs_of(self, options):
        class Weigh(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.model.objective.beta = (4.0, 1.0)[epoch]
                # With so many, the KL divergence costs nothing.
                self.model.objective.free_bits = (0.0, 1e4)[epoch]

        vae = compiled(**options)
        history = fit(vae, epochs=2, callbacks=[Weigh()])
        weights, expected = by_hand(betas=(4.0, 0.0))
        self.assert_weights(vae, weights, 1e-3, 1e-4)
        self.assertAllClose(history["kl"][-1], expected["kl"], 1e-3)
        unlike = by_hand(betas=(1.0, 1.0))[0]
        self.assertGreater(apart(weights, unlike), 0.05)

    def test_a_callback_may_stop_training_within_an_epoch(self):
        class Enough(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.model.stop_training = batch == 1

        vae = eager()
        history = fit(vae, epochs=5, callbacks=[Enough()])
        self.assertLen(history["loss"], 1)
        self.assertEqual(int(vae.optimizer.iterations), 2)

    def test_lambda_callback_hears_the_history(self):
        heard = []
        history = watched(
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: heard.append(logs["elbo"])
            )
        )
        self.assertEqual(heard, history["elbo"])

    def test_learning_rate_scheduler_sets_the_step(self):
        vae = eager()
        schedule = keras.callbacks.LearningRateScheduler(
            [RATE, 0.0].__getitem__
        )
        history = fit(vae, epochs=2, callbacks=[schedule])
        self.assertAllClose(history["learning_rate"], [RATE, 0.0])
        self.assert_weights(vae, by_hand()[0])

    def test_terminate_on_nan_ends_it(self):
        vae = eager(optimizer=keras.optimizers.SGD(1e30))
        callbacks = [keras.callbacks.TerminateOnNaN()]
        history = fit(vae, batch_size=1, epochs=3, callbacks=callbacks)
        self.assertLen(history["loss"], 1)
        self.assertFalse(np.isfinite(history["loss"][0]))
        self.assertLess(int(vae.optimizer.iterations), 12)

    def test_early_stopping_watches_the_validation_loss(self):
        vae = eager()
        history = watched(
            keras.callbacks.LearningRateScheduler(then_worse),
            keras.callbacks.EarlyStopping(restore_best_weights=True),
            vae=vae,
            epochs=9,
        )
        self.assertLen(history["val_loss"], 4)
        best = np.argmin(history["val_loss"])
        self.assertEqual(best, 2)
        found = vae.evaluate(IMAGES, verbose=0)[0]
        self.assertAllClose(found, history["val_loss"][best], 1e-6)

    def test_reduce_lr_on_plateau_watches_the_validation_loss(self):
        # So large a delta that everything after the first is a plateau.
        history = watched(
            keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=1e6),
            epochs=4,
        )
        self.assertAllClose(
            history["learning_rate"], RATE * np.array([1, 1, 0.1, 0.01])
        )

    def test_model_checkpoint_keeps_the_best_model(self):
        path = self.path("best.keras")
        history = watched(
            keras.callbacks.LearningRateScheduler(then_worse),
            keras.callbacks.ModelCheckpoint(path, save_best_only=True),
            epochs=4,
        )
        best = eager(keras.saving.load_model(path, compile=False))
        found = best.evaluate(IMAGES, verbose=0)[0]
        self.assertEqual(np.argmin(history["val_loss"]), 2)
        self.assertAllClose(found, history["val_loss"][2], 1e-6)

    def test_model_checkpoint_keeps_the_weights_of_each_epoch(self):
        path = self.path("{epoch}-{val_elbo:.3f}.weights.h5")
        history = watched(
            keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
        )
        for number, elbo in enumerate(history["val_elbo"]):
            vae = eager(small_vae(seed=7))
            vae.load_weights(path.format(epoch=number + 1, val_elbo=elbo))
            found = vae.evaluate(IMAGES, verbose=0, return_dict=True)
            self.assertAllClose(found["elbo"], elbo, 1e-5)

    def test_backup_and_restore_ends_as_if_never_interrupted(self):
        class PowerCut(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch

            def on_train_batch_end(self, batch, logs=None):
                if self.epoch == 1:
                    raise RuntimeError("power cut")

        def train(vae, *callbacks):
            return fit(vae, batch_size=6, epochs=3, callbacks=[*callbacks])[
                "loss"
            ]

        backup = keras.callbacks.BackupAndRestore(self.path("backup"))
        interrupted = adam()
        with self.assertRaisesRegex(RuntimeError, "power cut"):
            train(interrupted, backup, PowerCut())
        self.assertEqual(int(interrupted.optimizer.iterations), 3)
        resumed = adam(seed=7)
        losses = train(resumed, backup)
        whole = adam()
        self.assertEqual(losses, train(whole)[1:])
        self.assert_identical(
            weights_and_slots(resumed), weights_and_slots(whole)
        )

    def test_csv_logger_writes_the_history(self):
        path = self.path("log.csv")
        history = watched(keras.callbacks.CSVLogger(path))
        with open(path) as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(set(rows[0]), {"epoch", *history})
        for name, numbers in history.items():
            self.assertAllClose([float(row[name]) for row in rows], numbers)

    @pytest.mark.slow
    def test_tensorboard_shows_the_history(self):
        path = self.path("logs")
        history = watched(
            keras.callbacks.TensorBoard(path, histogram_freq=1), vae=compiled()
        )
        for folder, prefix in (("train", ""), ("validation", "val_")):
            events = event_accumulator.EventAccumulator(f"{path}/{folder}")
            events.Reload()
            for name in NAMES:
                shown = [
                    tf.make_ndarray(event.tensor_proto)
                    for event in events.Tensors(f"epoch_{name}")
                ]
                self.assertAllClose(shown, history[prefix + name], 1e-6)

    @pytest.mark.slow
    def test_averaged_weights_are_validated_and_kept(self):
        vae = eager(
            optimizer=keras.optimizers.SGD(RATE, use_ema=True, ema_momentum=0.9)
        )
        average = None

        class Average(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                nonlocal average
                new = values(self.model.trainable_variables)
                average = [
                    0.9 * old + 0.1 * one
                    for old, one in zip(average or new, new)
                ]

        history = fit(
            vae,
            epochs=2,
            batch_size=6,
            validation_data=IMAGES,
            callbacks=[Average(), keras.callbacks.SwapEMAWeights()],
        )
        self.assert_weights(vae, average)
        found = vae.evaluate(IMAGES, batch_size=6, verbose=0)[0]
        self.assertAllClose(history["val_loss"][-1], found, 1e-5)
        # Training itself went on from the weights and not from their average.
        weights, expected = by_hand(6, (1.0, 1.0))
        self.assertAllClose(history["loss"][-1], expected["loss"], 1e-5)
        self.assertNotAllClose(vae.trainable_variables[0], weights[0])


@keras.saving.register_keras_serializable("guides")
class Bright(vae_tf.VAE):
    """A model with a metric of its own, and a log that no metric remembers."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.brightness = keras.metrics.Mean(name="brightness")

    def train_step(self, data):
        logs = super().train_step(data)
        pixels = tf.reduce_mean(data, [1, 2, 3])
        self.brightness.update_state(pixels)
        return logs | {
            "brightness": self.brightness.result(),
            "last_batch": tf.reduce_mean(pixels),
        }

    def test_step(self, data):
        logs = super().test_step(data)
        self.brightness.update_state(tf.reduce_mean(data, [1, 2, 3]))
        return logs | {"brightness": self.brightness.result()}


class OwnStep(vae_tf.VAE):
    """The guide's step, written out; what of it is logged is said below."""

    logged: tuple[str, ...] = ("loss", "norm")

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.elbo(data, seed=1))
        slopes = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(slopes, self.trainable_variables))
        logs = {"loss": loss, "norm": tf.linalg.global_norm(slopes)}
        return {name: logs[name] for name in self.logged}


class OwnStepOfNoLoss(OwnStep):
    logged = ("norm",)


def like_small(kind):
    """A small model of another class, with the same weights."""
    vae = small_vae()
    other = kind.from_config(vae.get_config())
    other.set_weights(vae.get_weights())
    return other


RUN = {
    "one_by_one": {},
    "four_at_once": {"steps_per_execution": 4},
    "by_xla": {"jit_compile": True},
    "in_a_compiled_loop": {"jit_compile": True, "steps_per_execution": 4},
}


class OwnStepTest(GuideTest):
    """Customizing what happens in `fit`."""

    @parameterized.parameters("one_by_one", "in_a_compiled_loop")
    def test_a_metric_and_a_log_of_one_s_own(self, run):
        self.assert_a_metric_and_a_log_of_one_s_own(**RUN[run])

    @parameterized.parameters("four_at_once", "by_xla")
    @pytest.mark.slow
    def test_they_are_whatever_runs_the_step(self, run):
        self.assert_a_metric_and_a_log_of_one_s_own(**RUN[run])

    def assert_a_metric_and_a_log_of_one_s_own(self, **options):
        # A loop runs a short last batch by itself.
        size = 5 if "steps_per_execution" in options else 6
        vae = compiled(like_small(Bright), **options)
        history = fit(vae, batch_size=size, epochs=2)
        # Of all images, in each epoch anew; of those of the last batch.
        last = IMAGES[10:] if size == 5 else IMAGES[6:]
        for name, images in (("brightness", IMAGES), ("last_batch", last)):
            self.assertAllClose(history[name], [np.mean(images)] * 2, 1e-5)
        weights, expected = by_hand(size, (1.0, 1.0))
        self.assert_weights(vae, weights)
        self.assertAllClose(history["loss"][-1], expected["loss"], 1e-4)

    def test_a_metric_of_one_s_own_is_validated(self):
        vae = eager(like_small(Bright))
        history = fit(vae, batch_size=5, validation_data=IMAGES[:7])
        self.assertAllClose(history["brightness"], [np.mean(IMAGES)], 1e-5)
        self.assertAllClose(
            history["val_brightness"], [np.mean(IMAGES[:7])], 1e-5
        )

    @parameterized.parameters("one_by_one", "in_a_compiled_loop")
    def test_a_step_written_out(self, run):
        vae, other = like_small(OwnStep), small_vae()
        history = fit(compiled(vae, **RUN[run]), batch_size=12, epochs=2)
        for loss, norm in zip(history["loss"], history["norm"]):
            with tf.GradientTape() as tape:
                expected = -tf.reduce_mean(other.elbo(IMAGES, seed=1))
            slopes = tape.gradient(expected, other.trainable_variables)
            for variable, slope in zip(other.trainable_variables, slopes):
                variable.assign_sub(RATE * slope)
            self.assertAllClose(loss, expected, 1e-5)
            self.assertAllClose(norm, tf.linalg.global_norm(slopes), 1e-4)
        self.assert_weights(vae, values(other.trainable_variables))

    def test_a_step_need_not_log_a_loss(self):
        vae = eager(like_small(OwnStepOfNoLoss))
        history = fit(vae, batch_size=12)
        self.assertEqual(list(history), ["norm"])
        self.assertGreater(history["norm"][0], 0)


def settings(vae):
    """The configuration as JSON has it: of lists, without tuples."""
    return json.loads(vae.to_json())["config"]


class SavingTest(GuideTest):
    """Save, serialize, and export models."""

    def test_the_keras_format_keeps_weights_and_settings(self):
        vae = eager(
            small_vae(prior="mixture", objective=vae_tf.ELBO(2, beta=0.5))
        )
        fit(vae)
        path = self.path("vae.keras")
        vae.save(path)
        loaded = keras.saving.load_model(path, compile=False)
        self.assert_identical(loaded.get_weights(), vae.get_weights())
        self.assertEqual(settings(loaded), settings(vae))
        self.assertAllEqual(loaded.elbo(IMAGES, 1), vae.elbo(IMAGES, 1))
        self.assertAllEqual(loaded.sample(3, seed=1), vae.sample(3, seed=1))

    def test_a_loaded_model_is_compiled_and_trains_on(self):
        vae = compiled(optimizer=keras.optimizers.Adam(1e-2))
        fit(vae)
        path = self.path("vae.keras")
        vae.save(path)
        loaded = keras.saving.load_model(path)
        self.assert_identical(
            values(loaded.optimizer.variables), values(vae.optimizer.variables)
        )
        self.assertEqual(fit(loaded), fit(vae))
        self.assert_identical(loaded.get_weights(), vae.get_weights())

    def test_weights_alone(self):
        vae, other = small_vae(), small_vae(seed=7)
        path = self.path("vae.weights.h5")
        vae.save_weights(path)
        other.load_weights(path)
        self.assert_identical(other.get_weights(), vae.get_weights())
        with self.assertRaisesRegex(ValueError, "could not be loaded"):
            small_vae(latent_dim=3).load_weights(path)

    def test_a_configuration_makes_the_same_architecture_anew(self):
        vae = small_vae(
            posterior="full_covariance", objective=vae_tf.IWAE(4), seed=3
        )
        for other in (
            vae_tf.VAE.from_config(vae.get_config()),
            keras.models.model_from_json(vae.to_json()),
            keras.models.clone_model(vae),
        ):
            self.assertEqual(settings(other), settings(vae))
            self.assertNotAllClose(other.get_weights()[0], vae.get_weights()[0])
            other.set_weights(vae.get_weights())
            self.assertAllEqual(other.elbo(IMAGES, 1), vae.elbo(IMAGES, 1))
            # Its variables are its own.
            other.trainable_variables[0].assign_add(
                tf.ones_like(other.trainable_variables[0])
            )
            self.assertNotAllClose(other.get_weights()[0], vae.get_weights()[0])

    def test_a_model_with_a_step_of_its_own_comes_back_as_that(self):
        vae = like_small(Bright)
        path = self.path("bright.keras")
        vae.save(path)
        loaded = keras.saving.load_model(path)
        self.assertIsInstance(loaded, Bright)
        self.assert_identical(loaded.get_weights(), vae.get_weights())

    @pytest.mark.slow
    def test_a_new_process_needs_the_import_alone(self):
        vae = small_vae()
        folder = self.create_tempdir().full_path
        vae.save(f"{folder}/vae.keras")
        np.save(f"{folder}/images.npy", IMAGES)
        code = (
            "import keras, vae_tf\n"
            "import numpy as np\n"
            "vae = keras.saving.load_model('vae.keras')\n"
            "found = vae.predict(np.load('images.npy'), verbose=0)\n"
            "np.save('found.npy', found)\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
        self.assertAllClose(np.load(f"{folder}/found.npy"), vae(IMAGES), 1e-5)

    def test_an_exported_model_reconstructs(self):
        vae, path = small_vae(), self.path("exported")
        expected = vae(IMAGES)
        vae.export(path, verbose=False)
        served = tf.saved_model.load(path)
        self.assertAllClose(served.serve(IMAGES), expected, 1e-5)
        self.assertAllClose(served.serve(IMAGES[:5]), expected[:5], 1e-5)
        layer = keras.layers.TFSMLayer(path, call_endpoint="serve")
        self.assertAllClose(layer(IMAGES), expected, 1e-5)

    def test_a_model_that_was_fitted_can_be_exported(self):
        vae, path = eager(), self.path("exported")
        fit(vae)
        vae.export(path, verbose=False)
        served = tf.saved_model.load(path)
        self.assertAllClose(served.serve(IMAGES), vae(IMAGES), 1e-5)

    def test_an_archive_has_the_endpoints_that_it_is_given(self):
        vae, path = small_vae(), self.path("archive")
        archive = keras.export.ExportArchive()
        archive.track(vae)
        archive.add_endpoint(
            "decode",
            lambda z: vae.decoder(z).mean(),
            input_signature=[tf.TensorSpec((None, 2))],
        )
        archive.add_endpoint(
            "sample",
            lambda seed: vae.sample(4, seed),
            input_signature=[tf.TensorSpec((), tf.int64)],
        )
        archive.write_out(path, verbose=False)
        served, z = tf.saved_model.load(path), tf.constant([[0.5, -1.0]])
        self.assertAllClose(served.decode(z), vae.decoder(z).mean(), 1e-5)
        seed = tf.constant(3, tf.int64)
        self.assertAllEqual(served.sample(seed), vae.sample(4, 3))


class CheckpointTest(GuideTest):
    """TensorFlow's guide to training checkpoints."""

    def test_a_manager_restores_what_training_goes_on_from(self):
        folder = self.create_tempdir().full_path

        def managed(vae):
            checkpoint = tf.train.Checkpoint(
                step=tf.Variable(0), optimizer=vae.optimizer, net=vae
            )
            return checkpoint, tf.train.CheckpointManager(
                checkpoint, folder, max_to_keep=2
            )

        vae = adam()
        checkpoint, manager = managed(vae)
        vae.objective.beta = 0.5
        for _ in range(3):
            fit(vae, batch_size=12)
            checkpoint.step.assign_add(1)
            manager.save()
        self.assertLen(manager.checkpoints, 2)

        # A fresh model has no slots as yet: they are restored as they are made.
        fresh = adam(seed=7)
        checkpoint, manager = managed(fresh)
        status = checkpoint.restore(manager.latest_checkpoint)
        status.assert_existing_objects_matched()
        self.assertEqual(int(checkpoint.step), 3)
        self.assertEqual(int(fresh.optimizer.iterations), 3)
        self.assertEqual(fresh.objective.beta, 0.5)
        self.assert_identical(fresh.get_weights(), vae.get_weights())
        self.assertEqual(fit(fresh), fit(vae))
        self.assert_identical(weights_and_slots(fresh), weights_and_slots(vae))

    def test_nothing_of_a_checkpoint_is_left_over(self):
        vae, fresh = adam(), adam(seed=7)
        fit(vae)
        path = tf.train.Checkpoint(model=vae).save(self.path("vae"))
        fresh.optimizer.build(fresh.trainable_variables)
        status = tf.train.Checkpoint(model=fresh).restore(path)
        status.assert_consumed()
        self.assert_identical(weights_and_slots(fresh), weights_and_slots(vae))
        # Updates and learning rate, and of each weight both moments.
        self.assertLen(
            fresh.optimizer.variables, 2 + 2 * len(fresh.trainable_variables)
        )
        self.assertGreater(np.abs(fresh.optimizer.variables[2]).max(), 0)

    def test_without_an_optimizer_the_weights_are_restored(self):
        vae, fresh = adam(), small_vae(seed=7)
        fit(vae)
        path = tf.train.Checkpoint(model=vae).save(self.path("vae"))
        tf.train.Checkpoint(model=fresh).restore(path).expect_partial()
        self.assert_identical(fresh.get_weights(), vae.get_weights())
        self.assertAllEqual(fresh.elbo(IMAGES, 1), vae.elbo(IMAGES, 1))

    def test_a_part_is_restored_alone(self):
        vae, fresh = small_vae(), small_vae(seed=7)
        held = fresh.decoder.get_weights()
        path = tf.train.Checkpoint(encoder=vae.encoder).save(self.path("q"))
        part = tf.train.Checkpoint(encoder=fresh.encoder)
        part.restore(path).assert_consumed()
        self.assert_identical(
            fresh.encoder.get_weights(), vae.encoder.get_weights()
        )
        self.assert_identical(fresh.decoder.get_weights(), held)
