"""What Keras' `fit` is fed, and the manners that it expects of a model.

Any feed is looked at before the first step, as far as it can be; what cannot be
looked at before is counted in the steps themselves."""

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from vae_tf import executions, passes
from vae_tf.metrics import NonFinite, Refused, SettingBack
from vae_tf.parts import Checkpointed
from vae_tf.refusals import (
    NO_IMAGES,
    as_images,
    check_compiled,
    check_images,
    with_stop,
)
from vae_tf.settings import UserError

NO_WEIGHTS = (
    "sample_weight, class_weight: expected none, because each image counts "
    "once in the bound on log p(x), received weights (repeat or leave out "
    "images instead)."
)


def unpacked(data: Any, image_shape: tuple) -> tuple[tf.Tensor, tf.Tensor]:
    """What of a batch the model reads, and what it is to give probability to,
    `[B, H, W, C]` each; the same where a batch is no pair of images.

    Args:
      data: images; (images, labels), whose labels are ignored; (images,
        targets) with targets of the images' shape, the denoising criterion (Im
        et al. 2015, arXiv:1511.06406); or a dict with `image`.
      image_shape: `(H, W, C)`.

    Raises:
      UserError: it is none of these, or weighs its images.
    """
    images, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
    if weights is not None:
        raise UserError(NO_WEIGHTS)
    if isinstance(images, dict):
        if "image" not in images:
            raise UserError(
                "data: expected images, or dicts with 'image', received dicts "
                f"with {', '.join(sorted(map(str, images)))}."
            )
        images = images["image"]
    images = as_images(images, image_shape)
    shape = getattr(targets, "shape", None)
    if shape is None or tf.TensorShape(shape).rank is None:
        return images, images
    if tuple(shape[1:]) != image_shape:
        return images, images
    return images, as_images(targets, image_shape)


def first_of(data: Any) -> tuple[Any, Any]:
    """The first batch of anything that Keras' `fit` takes, and the feed with
    that batch still in it.

    Raises:
      UserError: there is none.
    """
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches == 0:  # None is endless.
            raise UserError(NO_IMAGES)
        return data[0], data
    try:
        iterator = iter(data.take(1) if hasattr(data, "take") else data)
        first = next(iterator)
    except StopIteration:
        raise UserError(NO_IMAGES) from None
    if isinstance(data, Iterator):  # It gives each batch but once.
        return first, _again(first, data)
    return first, data


def _again(first: Any, rest: Iterator) -> Iterator:
    """Tuples, as Keras wants them of a generator."""
    yield first if isinstance(first, tuple) else (first,)
    for batch in rest:
        yield batch if isinstance(batch, tuple) else (batch,)


def look_at(data: Any, image_shape: tuple, support: str) -> Any:
    """A feed of images after a look at all of an array, at the first batch of
    anything else.

    Raises:
      UserError: its images are not what `check_images` expects.
    """
    if data is None or isinstance(data, tf.distribute.DistributedDataset):
        return data  # The steps themselves look at the images of the latter.
    first = data
    if not _is_whole(data):
        first, data = first_of(data)
    images, targets = unpacked(first, image_shape)
    if images is not targets:
        check_images(images, image_shape, "interval")
    check_images(targets, image_shape, support)
    return data


def _is_whole(data: Any) -> bool:
    """Whether it is all there is, in arrays."""
    return isinstance(data, (tuple, list, dict)) or hasattr(data, "__array__")


def batches_that_end(data: Any, batch_size: int) -> Any:
    """Batches of an array, a dataset or a `PyDataset`, to be gone through once.

    Raises:
      UserError: they do not end, or can be gone through but once.
    """
    lasting = isinstance(data, tf.data.Dataset)
    indexed = isinstance(data, keras.utils.PyDataset)
    if (lasting and data.cardinality() == tf.data.INFINITE_CARDINALITY) or (
        indexed and data.num_batches is None
    ):
        raise UserError(
            "data: expected a dataset that ends, received one that repeats "
            "without end (adapt before `repeat`)."
        )
    if lasting:
        return data
    if indexed:
        return (data[number] for number in range(data.num_batches))
    if isinstance(data, Iterator):
        raise UserError(
            "data: expected images that can be gone through again, received a "
            f"{type(data).__name__}."
        )
    if _is_whole(data):
        return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)
    return data


class Fed(Checkpointed):
    """Base of a model of images that Keras trains: what is fed to it is looked
    at, and several of its steps run in one compiled call.

    A subclass gives `train_step` and `test_step`, and calls `expect` when it
    knows its images.
    """

    def expect(
        self,
        image_shape: tuple,
        support: str,
        base: type["Fed"],
    ) -> None:
        """Says what images there will be, what their pixels are (see
        `Likelihood.support`), and whose steps are ours: a further subclass may
        train, or test, by one of its own.
        """
        self.image_shape, self.support = image_shape, support
        self.own_step = type(self).train_step is not base.train_step
        self.own_test_step = type(self).test_step is not base.test_step
        self.refused = Refused(support)
        self.non_finite = NonFinite()
        self._guards = False  # whether that is asked in each step
        self._set_back = SettingBack()
        self.passes_begun = 0
        # Datasets that were looked at.
        self._seen: weakref.WeakSet = weakref.WeakSet()

    @property
    def optimized_variables(self) -> list[keras.Variable]:
        """What the optimizer keeps slots for."""
        return self.trainable_variables

    def step_input(self, data):
        """What of a batch a compiled loop hands to `train_step`: XLA takes no
        labels that are strings, for example.
        """
        if self.own_step:
            return data  # which may look at all of it
        return self._read(data)

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        if not self.optimizer.built:
            # For every variable, where the first update moves some alone, and
            # here, because a compiled loop can make no variable.
            with self.distribute_strategy.scope():
                self.optimizer.build(self.optimized_variables)
        super().make_train_function(force)
        if self._shares(self.own_step):
            loop = functools.partial(executions.shared_loop, self)
        elif self._loops():
            loop = functools.partial(
                executions.compiled_loop, self, self.own_step, self.step_input
            )
        else:
            return
        self.train_function: Any = passes.reading(
            functools.partial(loop, self.train_step, self.train_function)
        )

    def make_test_function(self, force=False):
        if self.test_function is not None and not force:
            return
        super().make_test_function(force)
        if self._shares(self.own_test_step):
            loop = functools.partial(executions.shared_loop, self)
        elif self._loops() and not self.own_test_step:
            loop = functools.partial(
                executions.compiled_loop, self, False, self._read
            )
        else:
            return
        self.test_function: Any = passes.reading(
            functools.partial(loop, self.test_step, self.test_function)
        )

    def _shares(self, own: bool) -> bool:
        """Whether several devices share each batch of a step, which is not the
        `own` one of a further subclass.
        """
        several = self.distribute_strategy.num_replicas_in_sync > 1
        return several and not (own or self.run_eagerly)

    def _can_share(self, data, own: bool) -> bool:
        """Whether each device takes its own rows of a feed."""
        if not (isinstance(data, tf.data.Dataset) and self._shares(own)):
            return False
        return passes.Shared.takes(data, self.distribute_strategy)

    def _read(self, *parts):
        batch = parts if len(parts) > 1 else parts[0]
        images, targets = unpacked(batch, self.image_shape)
        return images if targets is images else (images, targets)

    def _loops(self) -> bool:
        """Whether `fit` runs several steps in one compiled call."""
        several = self.jit_compile and self.steps_per_execution > 1
        return bool(
            several and not self.run_eagerly and executions.suit_xla(self)
        )

    def _resolve_auto_jit_compile(self):
        # Keras' own answer is no wherever there is no GPU.
        return executions.suit_xla(self) or super()._resolve_auto_jit_compile()

    def compile(self, *args, **kwargs):
        """Keras' `compile`, without losses and metrics of outputs: what is
        maximised is `objective`.

        Raises:
          UserError: it is given any.
        """
        check_compiled(_given(keras.Model.compile, self, *args, **kwargs))
        super().compile(*args, **kwargs)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Keras' `fit`, after a look at the images: all of an array, the first
        batch of anything else. It stops where the bound is no finite number.

        Raises:
          UserError: images are not what `check_images` expects (those of later
            batches are counted, and said at the end of the epoch), or weighed.
        """
        given = _given(keras.Model.fit, self, x, y, *args, **kwargs)
        x = self._seen_to(x, y)
        given["validation_data"] = self._tested(given.get("validation_data"))
        if isinstance(x, tf.data.Dataset):
            # A dataset shuffles itself; Keras warns at its own default.
            given.setdefault("shuffle", False)
        x = self._taken_apart(x, self.own_step, self._loops())
        given["callbacks"] = with_stop(given.get("callbacks"), self)
        self.guarded(False)  # until a `Health` of this call asks for it
        try:
            history = super().fit(**given | {"x": x})
            self.refused.check()
        finally:  # Interrupted, too, it leaves nothing to the next call.
            self.guarded(False)
            self.refused.reset_state()
        return history

    def _taken_apart(self, data, own: bool, loops: bool):
        """A feed whose images the step makes, and of which each device is given
        its own part, where we can.
        """
        in_step = getattr(data, "in_step", None)
        # Keras has a way of its own to feed a strategy of one device.
        cut = self._distribute_strategy or tf.distribute.has_strategy()
        if in_step and loops and not cut:
            return passes.Passes(*in_step)
        if in_step and self._can_share(in_step.elements, own):
            return passes.Shared(in_step.elements, in_step.images_of)
        if self._can_share(data, own):
            # What a step reads, whose parts have equal rows.
            return passes.Shared(data.map(self._read), None)
        return data

    def _tested(self, x, y=None):
        """What `test_step` is fed, after a look at the images."""
        own = self.own_test_step
        loops = self._loops() and not own
        return self._taken_apart(self._seen_to(x, y), own, loops)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Keras' `evaluate`, after a look at the images as in `fit`; the same
        numbers at every call.
        """
        given = _given(keras.Model.evaluate, self, x, y, *args, **kwargs)
        # Inside `fit`, which has looked already, Keras sets this.
        if not kwargs.get("_use_cached_eval_dataset"):
            given["x"] = self._tested(x, y)
        try:
            result = super().evaluate(**given)
            self.refused.check()
        finally:
            self.refused.reset_state()
        return result

    def predict(self, x, *args, **kwargs):
        """Keras' `predict`: reconstructions `[N, H, W, C]`, after a look at the
        images as in `fit`.
        """
        x = look_at(x, self.image_shape, "interval")
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """Keras' `train_on_batch`, after a look at the images."""
        return super().train_on_batch(self._seen_to(x, y), y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """Keras' `test_on_batch`, after a look at the images."""
        return super().test_on_batch(self._seen_to(x, y), y, *args, **kwargs)

    def compile_from_config(self, config):
        # Keras leaves this to who has a `compile` of their own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.optimized_variables)

    @property
    def metrics_names(self):
        silent = self.refused, self.non_finite
        return [m.name for m in self.metrics if m not in silent]

    @property
    def metrics(self):
        # Those of a subclass, too, but for Keras' own of a compiled loss.
        found = [m for m in super().metrics if m is not self._loss_tracker]
        return sorted(found, key=lambda metric: metric.name != "loss")

    def reset_metrics(self):
        """At the end of a pass, which had better have had the right images."""
        self.passes_begun += 1
        try:
            self.refused.check()
        finally:
            if self._loops():
                self._set_back(self.metrics)
            else:
                super().reset_metrics()

    def _lock_state(self):
        # Open to metrics that a subclass makes after `super().__init__`, which
        # has built the model.
        pass

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Made whole when it is constructed. Keras would average a first batch
        # over devices, and fail where they have not as many images each.
        pass

    def _seen_to(self, x, y=None):
        """The feed, after a look at its images."""
        known = isinstance(x, tf.data.Dataset)
        if known and x in self._seen:
            return x  # Its first batch may cost more than a step.
        pair = x if y is None else (x, y)
        looked = look_at(pair, self.image_shape, self.support)
        if known:
            self._seen.add(x)
        return looked if y is None else x

    @property
    def guard(self) -> NonFinite | None:
        """What leaves out the steps whose bound is no finite number, and counts
        them, where `guarded` has asked for it.
        """
        return self.non_finite if self._guards else None

    def guarded(self, on: bool = True) -> None:
        """Whether steps have a guard, from now on."""
        if on != self._guards:
            self._guards = on
            self.train_function = None  # was traced the other way


def _given(method: Callable, *args, **kwargs) -> dict[str, Any]:
    """What a method of Keras' was given, by name, whether by place or not;
    raises UserError for weights of images.
    """
    bound = inspect.signature(method).bind(*args, **kwargs).arguments
    given = {k: v for k, v in bound.items() if k not in ("self", "kwargs")}
    given |= bound.get("kwargs", {})
    for name in ("sample_weight", "class_weight"):
        if given.get(name) is not None:
            raise UserError(NO_WEIGHTS)
    return given
