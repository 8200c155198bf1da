import pathlib
import re
import warnings

import tensorflow as tf
from absl.testing import parameterized
from fakes import certificate

from vae_tf.serving.client import Client
from vae_tf.serving.endpoints import endpoint
from vae_tf.settings import UserError

HTTPS = "https://vae.example.com"


class EndpointsTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("http://127.0.0.1:8501", "127.0.0.1", 8501, ""),
        ("https://Vae.Example.com", "vae.example.com", None, ""),
        ("https://vae.example.com./a/b//", "vae.example.com.", None, "/a/b"),
        ("http://[::1]:8501/", "::1", 8501, ""),
        ("http://tf_serving:8501", "tf_serving", 8501, ""),
        ("http://b\u00fccher.example:1", "xn--bcher-kva.example", 1, ""),
        ("http://h:1/\u00fc/a%20b", "h", 1, "/%C3%BC/a%20b"),
        ("grpc://unix:8500", "unix", 8500, ""),
        ("grpcs://h:8500/", "h", 8500, ""),
    )
    def test_reads_a_url(self, url, host, port, path):
        it = endpoint(url)
        self.assertEqual((it.host, it.port, it.path), (host, port, path))
        self.assertEqual(endpoint(it.url), it)

    @parameterized.parameters(
        "127.0.0.1:8501",
        "ftp://127.0.0.1:8501",
        "http://",
        "http://:8501",
        "http://127.0.0.1:port",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://my..host:8501",
        "http://.host:8501",
        f"http://{64 * 'a'}:8501",
        "http://my host:8501",
        "http://h%6f:8501",
        "http://[::1:8501",
        "http://[nobody]:8501",
        "http://127.0.0.1:8501\n",
        "http://h:1/a\tb",
        "http://h:1/\udc80",
        "http://\udc80:1",
        "grpc://127.0.0.1",
        "grpcs://127.0.0.1",
        "grpc://127.0.0.1:8500/vae",
        "",
    )
    def test_refuses_what_is_no_url(self, url):
        with self.assertRaisesRegex(
            UserError,
            f"--url: expected http.*grpc.*received {re.escape(repr(url))}",
        ):
            endpoint(url)

    @parameterized.parameters(
        "http://me:s3cret@my..host:8501",
        "http://me:s3/cret@host:8501",
        "http://me:s3@cret@my..host:8501",
        "me:s3cret@host:8501",
        "ftp://me:s3cret@host",
        "http://me:s3cret@host:8501/\n",
        "http://host:8501/?token=s3cret",
        "http://host:8501#s3cret",
        "http://me:s3cret\n@host:8501",
    )
    def test_no_refusal_says_a_secret(self, url):
        with self.assertRaises(UserError) as caught:
            endpoint(url)
        message = str(caught.exception)
        for word in ("s3", "cret", "me:"):
            self.assertNotIn(word, message)

    def test_nothing_that_is_shown_holds_a_secret(self):
        for settings in (
            {"url": "https://me:s3cret@vae.example.com"},
            {"url": HTTPS, "token": "s3cret"},
            {"url": HTTPS, "headers": {"Authorization": "s3cret"}},
            {"url": HTTPS, "headers": {"Authorization": "Key s3cret"}},
        ):
            it = endpoint(**settings)
            self.assertNotIn("s3cret", repr(it) + it.url)
            self.assertEqual(it.hide("a s3cret."), "a ***.")

    @parameterized.parameters(
        ({"token": "a\n"}, "token: expected visible characters"),
        ({"token": "a b"}, "token: expected visible characters"),
        ({"token": "\u00e9"}, "token: expected visible characters"),
        ({"token": ""}, "token: expected visible characters"),
        ({"token": 3}, "token: expected visible characters"),
        ({"headers": "X: a"}, "headers: expected .* received str"),
        ({"headers": {"a b": "v4lue"}}, "headers: .* the name 'a b'"),
        ({"headers": {3: "v4lue"}}, "headers: .* the name 3"),
        ({"headers": {"X": "v4lue\r\nY: b"}}, "headers: .* value of 'X'"),
        ({"headers": {"X": "v4lue\u00e9"}}, "headers: .* value of 'X'"),
        ({"headers": {"X": 3}}, "headers: .* value of 'X'"),
        ({"headers": {"X": "a", "x": "v4lue"}}, "headers: .* the name 'x'"),
        ({"headers": {"Content-Type": "v4lue"}}, "the name 'Content-Type'"),
        ({"headers": {"trace-bin": "v4lue"}}, "the name 'trace-bin'"),
        ({"headers": {"grpc-timeout": "v4lue"}}, "the name 'grpc-timeout'"),
    )
    def test_refuses(self, settings, message):
        with self.assertRaisesRegex(UserError, message) as caught:
            endpoint(HTTPS, **settings)
        self.assertNotIn("v4lue", str(caught.exception))

    @parameterized.parameters(
        ({"url": "https://me:pw@h", "token": "t"},),
        ({"url": HTTPS, "token": "t", "headers": {"authorization": "a"}},),
        ({"url": "https://me@h", "headers": {"Authorization": "a"}},),
    )
    def test_who_asks_is_said_once(self, settings):
        with self.assertRaisesRegex(UserError, "token: expected one of"):
            endpoint(**settings)

    @parameterized.parameters(
        ("http://vae.example.com:8501", True),
        ("grpc://10.0.0.1:8500", True),
        ("http://127.0.0.2:8501", False),
        ("http://localhost:8501", False),
        ("http://[::1]:8501", False),
        ("https://vae.example.com", False),
    )
    def test_warns_of_a_token_that_others_can_read(self, url, warned):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Client(url, token="s3cret").close()
            Client(url).close()
        messages = [str(one.message) for one in caught]
        self.assertLen(messages, int(warned), messages)
        if warned:
            self.assertRegex(messages[0], "token: expected https:.*can read it")
            self.assertNotIn("s3cret", messages[0])
            self.assertEqual(caught[0].filename, __file__)

    def test_certificates_are_read_before_anything_is_sent(self):
        directory = pathlib.Path(self.create_tempdir().full_path)
        empty, text = directory / "empty.pem", directory / "text.pem"
        empty.write_text("")
        text.write_bytes(b"\xff no certificate")
        for path in (empty, text, directory / "none.pem", directory, 3):
            with self.assertRaisesRegex(
                UserError, f"ca_file: expected a file .*received '{path}'"
            ):
                endpoint(HTTPS, ca_file=path)
        path, _ = certificate(directory)
        self.assertIn("BEGIN CERT", endpoint(HTTPS, ca_file=path).certificates)
        with self.assertRaisesRegex(UserError, "ca_file: .* with http://"):
            endpoint("http://127.0.0.1", ca_file=path)
