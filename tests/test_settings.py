import dataclasses
import inspect
from unittest import mock

import tensorflow as tf

from vae_tf import networks, posteriors, settings
from vae_tf.settings import UserError


class SettingsTest(tf.test.TestCase):
    def test_choose_takes_names_and_instances(self):
        family = {"mlp": networks.MLP}
        chosen = settings.choose("network", "mlp", family, hidden_units=(3,))
        self.assertEqual(chosen.hidden_units, (3,))
        self.assertIs(settings.choose("network", chosen, family), chosen)
        # A member takes the settings that it names, and no others.
        settings.choose(
            "network", "mlp", family, hidden_units=None, flow_depth=3
        )
        with self.assertRaisesRegex(UserError, "at least 2 for posterior iaf"):
            settings.choose(
                "posterior", "iaf", posteriors.POSTERIORS, latent_dim=1
            )
        with self.assertRaisesRegex(
            UserError, "network: expected one of mlp, "
        ):
            settings.choose("network", "lstm", family)


@dataclasses.dataclass(frozen=True)
class Several(settings.Settings):
    sizes: tuple[int, ...] = settings.setting((3,), "sizes", minimum=1)
    names: tuple[str, ...] | None = settings.setting(None, "names")


class SeveralTest(tf.test.TestCase):
    def test_values_are_of_the_type_declared(self):
        self.assertEqual(Several(names=["a", "b"]).names, ("a", "b"))
        sizes, names = dataclasses.fields(Several)
        self.assertEqual(settings.parsed(sizes, "3,4"), (3, 4))
        self.assertEqual(settings.parsed(names, "3,b"), ("3", "b"))
        for given, message in (
            ({"names": (3,)}, "--names: expected strings separated by commas,"),
            ({"names": ()}, "--names: expected strings .* received \\(\\)"),
            ({"names": "a"}, "--names: expected strings .* received 'a'"),
            ({"sizes": ("3",)}, "--sizes: expected integers .*, each >= 1"),
        ):
            with self.assertRaisesRegex(UserError, message):
                Several(**given)


@dataclasses.dataclass(frozen=True)
class Places(settings.Settings):
    here: str = settings.setting("runs", "a path", path=True)
    several: tuple[str, ...] | None = settings.setting(None, "more", path=True)
    anywhere: str | None = settings.setting(None, "", path=True, remote=True)


class PlacesTest(tf.test.TestCase):
    def test_a_path_lies_on_this_machine(self):
        for given, message in (
            ({"here": "s3://b/x"}, "--here: .*'s3://b/x' .*aws s3 cp --recur"),
            ({"here": "HDFS://n/x"}, "--here: .*hdfs dfs -put"),
            ({"here": "abfs+s://x"}, "--here: .*what its vendor has"),
            ({"here": "file:///x/y"}, "--here: .*write '/x/y'"),
            ({"here": ""}, "--here: expected a path, received ''"),
            ({"several": ("a", "gs://b")}, "--several: .*received 'gs://b'"),
        ):
            with self.assertRaisesRegex(UserError, message):
                Places(**given)
        # TFDS reads gs://.
        self.assertEqual(Places(anywhere="gs://b/x").anywhere, "gs://b/x")
        for path in ("mnist:3.0.1", "C:/x", "./s3://x", "/a/b:/c"):
            self.assertEqual(Places(here=path).here, path)


class Inherits(posteriors.MeanField):
    """A part whose constructor is another one's."""


class ConstructorTest(tf.test.TestCase):
    def test_is_read_even_where_python_shows_args_and_kwargs(self):
        # As it shows a Keras layer on 3.10 and 3.11.2.
        def shown(value):
            if isinstance(value, type):
                return inspect.Signature(
                    [
                        inspect.Parameter(
                            "args", inspect.Parameter.VAR_POSITIONAL
                        )
                    ]
                )
            return signature(value)

        signature = inspect.signature
        with mock.patch.object(inspect, "signature", shown):
            for family, member in (
                ({"a": Inherits}, Inherits),
                ({"a": networks.MLP}, networks.MLP),
            ):
                chosen = settings.choose(
                    "part", "a", family, latent_dim=3, hidden_units=(5,)
                )
                self.assertIsInstance(chosen, member)
            self.assertEqual(chosen.hidden_units, (5,))
        body = settings.choose(
            "network", "mlp", networks.DECODER_BODIES, hidden_units=(7,)
        )
        self.assertEqual(body.hidden_units, (7,))  # made by a function
