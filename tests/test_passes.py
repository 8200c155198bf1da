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
        lazy = passes.Passes(dataset, None, lambda: dataset)
        self.assertEqual(lazy.element_spec, dataset.element_spec)
        self.assertEqual(lazy.cardinality(), dataset.cardinality())
        for _ in range(2):  # each pass from the beginning
            one = iter(lazy)
            self.assertAllEqual(next(one), [0, 1])
            self.assertAllEqual(next(one), [2, 3])
        self.assertAllEqual(next(iter(lazy.map(lambda x: x + 1))), [1, 2])

    def test_a_function_reads_on_where_it_was(self):
        made = []

        def function_of(images_of):
            made.append(images_of)
            images_of = images_of or (lambda element: element)
            return lambda iterator: int(images_of(next(iterator)))

        read = passes.reading(function_of)
        dataset = tf.data.Dataset.range(3)

        def doubled(element):
            return 2 * element

        one = iter(passes.Passes(dataset, doubled, lambda: dataset))
        self.assertEqual([read(one), read(one)], [0, 2])
        other = iter(passes.Passes(dataset, None, lambda: dataset))
        self.assertEqual([read(other), read(other)], [0, 1])
        self.assertEqual(read(iter(dataset)), 0)
        self.assertEqual(read(one), 4)
        self.assertEqual(made, [doubled, None])  # once each

    def test_what_a_pass_is_made_of_is_set_up_once(self):
        traced, passed = [], tf.Variable(0, dtype=tf.int64)

        def make():
            traced.append(make)
            first = passed.assign_add(1)
            return tf.data.Dataset.range(first, 3).map(lambda x: 2 * x)

        begin = passes.set_up_once(make, tf.TensorSpec([], tf.int64))
        self.assertAllEqual(list(begin()), [2, 4])
        self.assertAllEqual(list(begin()), [4])
        self.assertLen(traced, 1)

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
                    self.__dict__["iterator"] = iter(self._begin())
                return self.__dict__["iterator"]

        with mock.patch.object(passes, "Pass", Counted):
            history = vae.fit(
                data.train, validation_data=data.validation, epochs=3, verbose=0
            ).history
        self.assertLen(made, 6)  # of three epochs, in training and validation
        self.assertTrue(np.all(np.isfinite(history["val_elbo"])))


if __name__ == "__main__":
    tf.test.main()
