"""An iterator that nobody reads is not made."""

from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import vae_tf
from vae_tf import passes


class PassesTest(tf.test.TestCase):
    def test_has_the_elements_of_the_dataset(self):
        dataset = tf.data.Dataset.range(5).batch(2)
        lazy = passes.Passes(dataset)
        self.assertEqual(lazy.element_spec, dataset.element_spec)
        self.assertEqual(lazy.cardinality(), dataset.cardinality())
        for _ in range(2):  # each pass from the beginning
            one = iter(lazy)
            self.assertAllEqual(next(one), [0, 1])
            self.assertAllEqual(next(one), [2, 3])
        self.assertAllEqual(next(iter(lazy.map(lambda x: x + 1))), [1, 2])

    def test_a_function_reads_on_where_it_was(self):
        summed = passes.reading(lambda iterator: int(next(iterator)))
        one = iter(passes.Passes(tf.data.Dataset.range(3)))
        self.assertEqual([summed(one), summed(one), summed(one)], [0, 1, 2])
        self.assertEqual(summed(iter(tf.data.Dataset.range(3))), 0)

    def test_fit_sets_up_one_iterator_for_each_pass(self):
        keras.utils.set_random_seed(0)
        data = vae_tf.load_data("digits", batch_size=512)
        vae = vae_tf.VAE(
            vae_tf.Encoder(2, hidden_units=(4,)),
            vae_tf.Decoder(data.image_shape, hidden_units=(4,)),
        )
        vae.compile(optimizer="sgd", jit_compile=True, steps_per_execution=3)
        made = []

        class Counted(passes.Pass):
            @property
            def iterator(self):
                if "iterator" not in self.__dict__:
                    made.append(self)
                    self.__dict__["iterator"] = iter(self._dataset)
                return self.__dict__["iterator"]

        with mock.patch.object(passes, "Pass", Counted):
            history = vae.fit(
                data.train, validation_data=data.validation, epochs=3, verbose=0
            ).history
        self.assertLen(made, 6)  # of three epochs, in training and validation
        self.assertTrue(np.all(np.isfinite(history["val_elbo"])))

    def test_a_pass_begins_with_all_metrics_set_back(self):
        metrics = [keras.metrics.Mean(), keras.metrics.Sum()]

        def reset():
            for metric in metrics:
                metric.reset_state()

        begin = passes.beginning(reset)
        for _ in range(2):
            for metric in metrics:
                metric.update_state(3.0)
                self.assertEqual(float(metric.result()), 3.0)
            begin(metrics)
            for metric in metrics:
                self.assertEqual(float(metric.result()), 0.0)
        # One that came later, too.
        metrics.append(keras.metrics.Sum())
        metrics[-1].update_state(2.0)
        begin(metrics)
        self.assertEqual(float(metrics[-1].result()), 0.0)


if __name__ == "__main__":
    tf.test.main()
