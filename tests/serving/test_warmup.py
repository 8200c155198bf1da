import pathlib
import re

import numpy as np
import tensorflow as tf
from small import combined, small_vae
from tensorflow_serving.apis import prediction_log_pb2

from vae_tf.serving import check, warmup
from vae_tf.serving.signatures import signatures

ROOT = pathlib.Path(__file__).parents[2]


class WarmupTest(tf.test.TestCase):
    def test_one_request_per_signature_and_batch_size(self):
        vae = small_vae()
        functions = signatures(vae, 4)
        path = pathlib.Path(self.create_tempdir().full_path) / "requests"
        warmup.write(functions, path)
        # TensorFlow's own reader, and the check's.
        requests = [
            prediction_log_pb2.PredictionLog.FromString(
                record.numpy()
            ).predict_log.request
            for record in tf.data.TFRecordDataset(str(path))
        ]
        self.assertEqual(requests, check.warmup_requests(path))
        found = set()
        for request in requests:
            name = request.model_spec.signature_name
            inputs = {
                key: tf.make_ndarray(value)
                for key, value in request.inputs.items()
            }
            function, specs = functions[name]
            self.assertSameElements(inputs, [spec.name for spec in specs])
            for spec in specs:
                self.assertEqual(inputs[spec.name].dtype, spec.dtype)
            (rows,) = {len(value) for value in inputs.values()}
            found.add((name, rows))
            if rows < 9:
                for value in function(**inputs).values():
                    if value.dtype == tf.float32:
                        self.assertAllInRange(value, -1e6, 1e6)  # and no NaN
        expected = [(n, r) for n in functions for r in warmup.BATCH_SIZES]
        self.assertSameElements(found, expected)

    def test_examples_are_valid_for_every_likelihood(self):
        for likelihood in ("bernoulli", "normal", "discretized_logistic"):
            function, specs = signatures(combined(likelihood), 2)["score"]
            score = function(**warmup.examples(specs, 3))
            for value in score.values():
                self.assertTrue(np.all(np.isfinite(value)))

    def test_the_batch_sizes_are_the_server_s(self):
        text = (ROOT / "deploy/batching.config").read_text()
        allowed = re.findall(r"(?m)^allowed_batch_sizes: (\d+)", text)
        largest = re.search(r"max_execution_batch_size { value: (\d+)", text)
        self.assertEqual(
            [int(n) for n in allowed if int(n) <= int(largest[1])],
            list(warmup.BATCH_SIZES),
        )
