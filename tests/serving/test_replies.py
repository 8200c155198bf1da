import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from vae_tf.serving import errors, replies

SPECS = {
    "z": ("float32", (-1, 2)),
    "seed": ("int64", (-1,)),
    "valid": ("bool", (-1,)),
    "image_bytes": ("string", (-1,)),
}
GOOD = {
    "z": [[1, 2.5], [replies.NotFinite("NaN"), replies.NotFinite("-Infinity")]],
    "seed": [-(2**63), 3],
    "valid": [True, False],
    "image_bytes": [b"\x89\0", b""],
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["z", "seed", "version", "state", "status", "signature_def"]
                + ["model_version_status", "inputs", "outputs", "dtype"]
            )
            | st.text(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


class RepliesTest(parameterized.TestCase, tf.test.TestCase):
    def test_reads_what_the_specs_say(self):
        arrays = replies.outputs(GOOD, SPECS, 2)
        self.assertAllEqual(
            arrays["z"], np.float32([[1, 2.5], [np.nan, -np.inf]])
        )
        self.assertEqual(arrays["seed"].tolist(), GOOD["seed"])
        self.assertEqual(arrays["valid"].tolist(), GOOD["valid"])
        self.assertEqual(arrays["image_bytes"].tolist(), GOOD["image_bytes"])
        dtypes = [str(array.dtype) for array in arrays.values()]
        self.assertEqual(dtypes, ["float32", "int64", "bool", "object"])
        # As gRPC gives them.
        again = replies.outputs(arrays, SPECS, 2)
        self.assertAllEqual(again["z"], arrays["z"])

    @parameterized.parameters(
        ("z", [[1.0, None], [1.0, 1.0]], "NoneType"),
        ("z", [[1.0, "0.5"], [1.0, 1.0]], "str"),
        ("z", [[1.0, True], [1.0, 1.0]], "bool"),
        ("z", [[1.0, float("inf")], [1.0, 1.0]], "too large"),
        ("z", [[1.0, 10**400], [1.0, 1.0]], "too large"),
        ("z", [[1.0, 1e39], [1.0, 1.0]], "overflow"),
        ("z", [[1.0, [2.0]], [1.0, 1.0]], "list"),
        ("z", [[1.0, "a"], ["b"]], r"it is \[2\]"),
        ("z", 3.0, r"it is \[\]"),
        ("z", None, r"it is \[\]"),
        ("z", np.zeros((2, 2)), "it is float64"),
        ("z", np.zeros((2, 3), np.float32), r"it is \[2, 3\]"),
        ("seed", [1.0, 2.0], "float"),
        ("seed", [True, 2], "bool"),
        ("seed", [2**63, 1], "too large"),
        ("valid", [1, 0], "int"),
        ("valid", ["true", "false"], "str"),
        ("image_bytes", ["a", "b"], "str"),
        ("image_bytes", [b"a", None], "NoneType"),
        ("image_bytes", np.zeros(2), "float64"),
    )
    def test_nothing_becomes_a_number_that_is_none(self, key, value, reason):
        with self.assertRaisesRegex(
            errors.BadReply, f"expected {key} as .*received .*{reason}"
        ):
            replies.outputs(GOOD | {key: value}, SPECS, 2)

    def test_a_message_is_short(self):
        deep = []
        for _ in range(10**5):
            deep = [deep]
        for reply in (deep, list(range(10**6)), "a" * 10**6):
            with self.assertRaises(errors.BadReply) as caught:
                replies.outputs(reply, {"z": SPECS["z"]}, 2)
            self.assertLess(len(str(caught.exception)), 1000)

    def test_says_why_a_version_failed(self):
        states = replies.states(
            {
                "model_version_status": [
                    {
                        "version": "2",
                        "state": "END",
                        "status": {
                            "error_code": "NOT_FOUND",
                            "error_message": "no file",
                        },
                    },
                    # As gRPC writes one, without what is zero.
                    {"version": "1", "state": "AVAILABLE", "status": {}},
                ]
            }
        )
        self.assertEqual(states, {2: "END", 1: "AVAILABLE"})
        self.assertEqual(states[1].error, "")
        self.assertEqual(
            replies.written(states),
            ["version 1: AVAILABLE", "version 2: END (NOT_FOUND: no file)"],
        )

    @hypothesis.settings(max_examples=300, deadline=None)
    @hypothesis.given(JSON)
    def test_any_reply_is_read_or_a_bad_reply(self, value):
        for given in (
            value,
            {"model_version_status": value},
            {"model_version_status": [{"version": 1, "status": value}]},
            {"model_version_status": [{"version": 1, "state": value}]},
            {"signature_def": value},
            {"signature_def": {"decode": {"inputs": value, "outputs": {}}}},
        ):
            for parse in (replies.states, replies.signatures, replies.version):
                try:
                    found = replies.read("it", parse, given)
                except errors.BadReply:
                    continue
                json.dumps(found)  # of strings and numbers, whatever they say
        for key in SPECS:
            try:
                array = replies.outputs(GOOD | {key: value}, SPECS, 2)[key]
            except errors.BadReply:
                continue
            self.assertLen(array, 2)
