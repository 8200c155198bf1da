import json
import os
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import vae_tf
from vae_tf.runs import workers

TWO = {"cluster": {"worker": ["a:1", "b:1"]}}


def environment(value):
    return mock.patch.dict(os.environ, TF_CONFIG=value)


class WorkersTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        "", "{}", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}}'
    )
    def test_one_device_where_there_is_no_cluster(self, text):
        with environment(text):
            for name in ("auto", "one_device"):
                strategy = workers.strategy_of(vae_tf.Config(strategy=name))
                self.assertEqual(strategy.num_replicas_in_sync, 1)
            self.assertTrue(workers.is_chief(strategy))
            self.assertTrue(workers.any_of(strategy, True))
            self.assertFalse(workers.any_of(strategy, False))
            with self.assertRaisesRegex(
                vae_tf.UserError, "--strategy: expected .* TF_CONFIG"
            ):
                workers.strategy_of(vae_tf.Config(strategy="multi_worker"))

    @parameterized.parameters("{", "[]", '"two"', '{"cluster": 3}')
    def test_a_cluster_that_is_none(self, text):
        with environment(text):
            with self.assertRaisesRegex(vae_tf.UserError, "TF_CONFIG: exp"):
                workers.strategy_of(vae_tf.Config())

    def test_what_workers_need(self):
        with environment(json.dumps(TWO)):
            with self.assertRaisesRegex(vae_tf.UserError, "--run_dir: exp"):
                workers.strategy_of(vae_tf.Config())
            with self.assertRaisesRegex(
                vae_tf.UserError, "one_device with --inference mean_field"
            ):
                workers.strategy_of(
                    vae_tf.Config(inference="mean_field", run_dir="a")
                )

    def test_sums_of_several_devices_come_back_to_one(self):
        strategy = tf.distribute.get_strategy()
        metric = keras.metrics.Mean()
        metric.update_state([1.0, 2.0, 6.0])
        kept = workers.apart(strategy, metric.variables)
        self.assertAllEqual(kept, [[9.0], [3.0]])
        metric.reset_state()
        workers.put_back(strategy, metric.variables, tuple(kept))
        self.assertAllEqual(metric.result(), 3.0)
        # Of three devices, 2 + 3 + 4 over 1 + 1 + 1.
        sums = np.float32([2, 3, 4]), np.float32([1, 1, 1])
        workers.put_back(strategy, metric.variables, sums)
        self.assertAllEqual(metric.result(), 3.0)
        self.assertAllEqual(metric.total, 9.0)

    @parameterized.parameters(
        (["worker"], "worker", 0, True),
        (["worker"], "worker", 1, False),
        (["chief", "worker"], "chief", 0, True),
        (["chief", "worker"], "worker", 0, False),
    )
    def test_one_worker_writes(self, jobs, kind, number, expected):
        strategy = mock.Mock()
        resolver = strategy.cluster_resolver
        resolver.task_type, resolver.task_id = kind, number
        resolver.cluster_spec().jobs = jobs
        self.assertEqual(workers.is_chief(strategy), expected)


if __name__ == "__main__":
    tf.test.main()
