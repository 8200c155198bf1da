"""Small bundles for the explorer's tests, exported once for a class."""

import pathlib
import tempfile

import tensorflow as tf

import vae_tf
from vae_tf.serving.client import Client


class Exported(tf.test.TestCase):
    @classmethod
    def export(cls, vae):
        """A client of `vae`; `export_dir` is where its bundle lies."""
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        bundle = vae_tf.export(vae, pathlib.Path(place.name))
        client = Client(f"bundle:{bundle}")
        cls.addClassCleanup(client.close)
        client.export_dir = bundle.parent
        return client
