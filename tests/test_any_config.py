"""Properties of any `Config`: it is refused in one line, or it is JSON and
back, builds, and trains a step."""

import dataclasses
import json
import warnings

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from small import IMAGE_SHAPE

import vae_tf
from vae_tf.config import Config
from vae_tf.runs import building, training
from vae_tf.settings import _single, kind

DESCRIBED = {
    "image_shape": list(IMAGE_SHAPE),
    "levels": 2,
    "splits": {"train": 7, "validation": 3, "test": 3},
}
# Every value that a field may be given: of its type or not.
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
SMALL = {int: st.integers(1, 5), float: st.floats(1e-4, 2.0)}


def fitting(field):
    """Values that a field takes, small ones of numbers."""
    type_, optional = kind(field)
    if field.name == "learning_rate":
        values = st.floats(1e-5, 1e-2)  # A larger one may rightly diverge.
    elif choices := field.metadata.get("choices"):
        values = st.sampled_from(sorted(choices))
    elif type_ is bool:
        values = st.booleans()
    elif type_ is tuple:
        values = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
    elif type_ in SMALL:
        values = SMALL[type_]
    else:
        values = st.text("abc/. é", min_size=1, max_size=9)
    if "maximum" in field.metadata:
        values = values.filter(lambda v: v <= field.metadata["maximum"])
    return st.one_of(st.none(), values) if optional else values


FIELDS = dataclasses.fields(Config)
FITTING = st.fixed_dictionaries(
    {}, optional={field.name: fitting(field) for field in FIELDS}
)
JUNK = st.fixed_dictionaries(
    {}, optional={field.name: ANYTHING for field in FIELDS}
)


def properties(count):
    return hypothesis.settings(
        max_examples=count,
        derandomize=True,  # the same examples in every run
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def made(values):
    """A Config; None where it is refused, in one line that says what for."""
    try:
        return Config(**values)
    except vae_tf.UserError as error:
        assert "expected" in str(error) and "received" in str(error), error
        assert "\n" not in str(error), error
        return None


def trains_a_step_or_is_refused(values):
    config = made(values)
    hypothesis.assume(config is not None)
    images = np.random.default_rng(0).integers(0, 2, (3, *IMAGE_SHAPE))
    batch = images.astype(np.float32)
    if config.inference == "mean_field":
        batch = {"image": batch, "row": np.arange(3, dtype=np.int32)}
    keras.backend.clear_session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = building.filled(config, DESCRIBED)
            vae = building.build(config, DESCRIBED)
        except vae_tf.UserError as error:
            assert "expected" in str(error) and "received" in str(error), error
            return
        vae.compile(training._optimizer(config, 10), run_eagerly=True)
        before = vae.get_weights()
        logs = vae.train_on_batch(batch, return_dict=True)
    assert np.all(np.isfinite(list(logs.values()))), (config, logs)
    for weights in vae.get_weights():
        assert np.all(np.isfinite(weights)), config
    # A step size of 0 at the start of a schedule leaves them as they were.
    assert len(before) == len(vae.get_weights())


class AnyConfigTest(tf.test.TestCase):
    @properties(200)
    @hypothesis.given(FITTING)
    def test_what_fits_survives_json(self, values):
        config = made(values)
        if config is not None:
            written = json.loads(json.dumps(dataclasses.asdict(config)))
            self.assertEqual(Config(**written), config)

    @properties(300)
    @hypothesis.given(JUNK)
    def test_junk_is_refused_or_of_the_fields_types(self, values):
        config = made(values)
        if config is None:
            return
        for field in FIELDS:
            type_, optional = kind(field)
            value = getattr(config, field.name)
            self.assertTrue(
                isinstance(value, type_) or (optional and value is None)
            )
            if type_ is tuple and value is not None:
                self.assertTrue(
                    all(type(part) is _single(field) for part in value)
                )

    @properties(6)
    @hypothesis.given(FITTING)
    def test_trains_a_step_or_is_refused(self, values):
        trains_a_step_or_is_refused(values)

    @properties(1000)
    @hypothesis.given(FITTING)
    @pytest.mark.slow
    def test_each_of_many_trains_a_step_or_is_refused(self, values):
        trains_a_step_or_is_refused(values)


if __name__ == "__main__":
    tf.test.main()
