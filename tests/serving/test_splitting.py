from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.serving import errors, transports
from vae_tf.serving.splitting import ask

SPECS = {
    "decode": {
        "inputs": {"z": ("float32", (-1, 2))},
        "outputs": {"image": ("float32", (-1, 1))},
    }
}


def rows(count):
    return {"z": np.arange(2 * count).reshape(count, 2).astype(np.float32)}


class SplittingTest(parameterized.TestCase, tf.test.TestCase):
    def transport(self, largest=2**31, fit=2**31):
        """One that refuses more than `largest` rows, and thinks that `fit`
        fit.
        """
        transport = mock.create_autospec(transports.Transport, instance=True)
        transport.signatures.return_value = SPECS
        transport.rows_that_fit.return_value = fit
        transport.answering.return_value = 7
        self.asked = []

        def predict(signature, inputs, version=None):
            self.asked.append((len(inputs["z"]), version))
            if len(inputs["z"]) > largest:
                raise errors.MessageTooLarge("too large")
            return {"image": inputs["z"][:, :1]}

        transport.predict.side_effect = predict
        return transport

    @parameterized.parameters(
        (5, {}, 9, [(5, None)]),
        (5, {}, 2, [(2, 7), (2, 7), (1, 7)]),
        (5, {"fit": 3}, 9, [(3, 7), (2, 7)]),
        # A limit that only the server knows.
        (5, {"largest": 2}, 9, [(5, None), (3, 7), (2, 7), (2, 7), (1, 7)]),
        (5, {"largest": 1, "fit": 4}, 9, [(4, 7), (2, 7)] + 5 * [(1, 7)]),
    )
    def test_rows_come_in_order_from_one_version(
        self, count, limits, rows_per_request, asked
    ):
        inputs = rows(count)
        answer = ask(
            self.transport(**limits), "decode", inputs, rows_per_request
        )
        self.assertAllEqual(answer["image"], inputs["z"][:, :1])
        self.assertEqual(self.asked, asked)

    def test_a_row_that_is_too_large_alone_is_named(self):
        for count, message in ((1, "row 0: too large"), (3, "row 0: too")):
            with self.assertRaisesRegex(errors.MessageTooLarge, message):
                ask(self.transport(largest=0), "decode", rows(count), 9)
        transport = self.transport()
        predict = transport.predict.side_effect

        def second_is_large(signature, inputs, version=None):
            if 4 in inputs["z"]:
                raise errors.MessageTooLarge("too large")
            return predict(signature, inputs, version)

        transport.predict.side_effect = second_is_large
        with self.assertRaisesRegex(errors.MessageTooLarge, "row 2: too large"):
            ask(transport, "decode", rows(5), 9)

    def test_another_version_takes_the_place_of_one_that_went(self):
        transport, latest, went = self.transport(), 3, False
        transport.answering.side_effect = lambda: latest

        def predict(signature, inputs, version):
            nonlocal latest, went
            self.asked.append(version)
            if len(inputs["z"]) == 1 and not went:
                went, latest = True, 4
            if version != latest:
                raise errors.NotFound(f"version {version}")
            return {"image": np.full(len(inputs["z"]), version)}

        transport.predict.side_effect = predict
        answer = ask(transport, "decode", rows(5), 2)
        self.assertAllEqual(answer["image"], 5 * [4])
        self.assertEqual(self.asked, [3, 3, 3, 4, 4, 4])
