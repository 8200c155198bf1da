from unittest import mock

import tensorflow as tf
from small import combined, random_bits, small_vae

from vae_tf import executions
from vae_tf.evaluation import importance
from vae_tf.evaluation.compiled import compiled


def _mean(vae, images):
    return vae.encoder(images).mean()


def _stddev(vae, images):
    return vae.encoder(images).stddev()


class CompiledTest(tf.test.TestCase):
    def test_models_by_the_dozen_are_compiled_without_complaint(self):
        # TensorFlow warns of a function that is traced again and again.
        with self.assertNoLogs("tensorflow", "WARNING"):
            for seed in range(6):
                compiled(small_vae(seed=seed), _mean)(random_bits(3))

    def test_xla_compiles_what_it_makes_faster(self):
        # Of convolutions in a loop it makes something several times slower.
        for network, suits in (("mlp", True), ("conv", False)):
            vae = combined(network=network)
            images = random_bits(3)
            function = compiled(vae, _mean).get_concrete_function(images)
            attributes = function.function_def.attr
            self.assertEqual(attributes["_XlaMustCompile"].b, suits)

    def test_several_devices_change_nothing(self):
        # Steps go without XLA there; what is measured is measured on one.
        vae = small_vae()
        several = mock.Mock(num_replicas_in_sync=2)
        with mock.patch.object(vae, "_distribute_strategy", several):
            self.assertFalse(executions.suit_xla(vae))
            function = compiled(vae, _mean)
        attributes = function.get_concrete_function(
            random_bits(3)
        ).function_def.attr
        self.assertTrue(attributes["_XlaMustCompile"].b)

    def test_the_numbers_are_the_same_without_xla(self):
        images = random_bits(3)
        with_xla = importance.estimate(small_vae(), images, 300, seed=0)
        with mock.patch(
            f"{compiled.__module__}.layers_suit_xla", lambda vae: False
        ):
            without = importance.estimate(small_vae(), images, 300, seed=0)
        self.assertAllClose(with_xla, without, 1e-4)

    def test_is_kept_with_its_model_and_reads_its_variables(self):
        vae, other, images = small_vae(), small_vae(seed=1), random_bits(3)
        for model in (vae, other):
            for function in (_mean, _stddev):
                found = compiled(model, function)(images)
                self.assertAllClose(found, function(model, images), 1e-5)
        self.assertIs(compiled(vae, _mean), compiled(vae, _mean))
        bias = vae.encoder.posterior.parameters.bias
        bias.assign(bias + 1)
        self.assertAllClose(
            compiled(vae, _mean)(images), _mean(vae, images), 1e-5
        )
        # Nothing of it is saved, or a variable of the model.
        self.assertLen(vae.variables, len(small_vae().variables))
