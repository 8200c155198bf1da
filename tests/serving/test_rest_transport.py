import contextlib
import http.server
import socket
import threading
import time
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import numpy as np
from absl.testing import parameterized
from fakes import SEED, FakeRest, TransportTestCase, connected

from vae_tf.serving import errors
from vae_tf.serving.client import Client
from vae_tf.serving.rest_transport import Rest

OVERFLOW = "[[1.0, 1e999], [-Infinity, NaN]]"
DEEP = 300 * "[" + 300 * "]"


class RestTransportTest(TransportTestCase):
    def test_rest_sends_columns_and_reads_a_bare_output(self):
        numbers = [[float("nan"), float("inf")], [-float("inf"), 0.1]]
        fake = FakeRest({"bare": numbers})
        with connected(fake) as transport:
            answer = transport.predict("points", SEED)
            transport.predict("points", SEED, version=7)
        self.assertEqual(answer["z"].dtype, np.float32)
        self.assertAllEqual(answer["z"], np.float32(numbers))
        body = {"signature_name": "points", "inputs": {"seed": [3, 1]}}
        self.assertEqual(
            fake.asked,
            [
                ("/v1/models/vae:predict", body),
                ("/v1/models/vae/versions/7:predict", body),
            ],
        )

    @parameterized.parameters(
        ("points", {"bare": [[1.0, 2.0], [3.0]]}),
        ("points", {"bare": "text"}),
        ("points", {"bare": {}}),
        ("both", {"bare": [[1.0, 2.0], [3.0, 4.0]]}),
        ("pictures", {"bare": ["text", "more"]}),
        ("pictures", {"bare": [{"b64": 3}, {"b64": 3}]}),
        ("pictures", {"bare": [{"b64": "!!"}, {"b64": "!!"}]}),
        ("points", {"bare": [[1.0, None], [3.0, 4.0]]}),
        ("points", {"bare": [[1.0, "0.5"], [3.0, 4.0]]}),
        ("points", {"bare": [[1.0, True], [3.0, 4.0]]}),
        ("points", {"bare": [[1.0, 10**400], [3.0, 4.0]]}),
        ("points", {"bare": [[1.0, 1e39], [3.0, 4.0]]}),
        ("points", lambda wire: wire.reply(200, f'{{"outputs": {OVERFLOW}}}')),
        ("points", lambda wire: wire.reply(200, f'{{"outputs": {DEEP}}}')),
        ("points", lambda wire: wire.reply(200, "[" * 10**5)),
        ("points", lambda wire: wire.reply(200, "<html>")),
        ("points", lambda wire: wire.reply(200, '{"outputs": [[1.0, 2')),
        ("points", lambda wire: wire.reply(200, '{"predictions": []}')),
        ("points", lambda wire: wire.reply(200, "[]")),
        ("points", lambda wire: wire.reply(200, "\x80")),
        ("points", lambda wire: wire.wfile.write(b"SSH-2.0-OpenSSH\r\n")),
    )
    def test_no_answer_is_a_bad_reply(self, signature, answer):
        fake = FakeRest(answer)
        self.refused(errors.BadReply, fake, signature, retries=2)
        self.assertLen(fake.asked, 1)

    def test_damaged_metadata_are_a_bad_reply(self):
        for known in ([], {"signature_def": {"points": {"inputs": {}}}}):
            fake = FakeRest({})
            fake.signature_defs = [known]
            self.refused(errors.BadReply, fake)

    @parameterized.parameters(301, 302, 303, 307, 308)
    def test_a_redirection_names_its_target(self, code):
        for target, shown in (
            ("https://vae.example.com/v1/models/vae:predict", None),
            (
                "https://me:pw@vae.example.com/v1/models/vae",
                r"https://\*\*\*@vae",
            ),
            ("/models/v1/models/vae", r"http://127.0.0.1:\d+/models"),
            ("http://[", r"http://\["),
        ):

            def moved(wire, target=target):
                wire.send_response(code)
                wire.send_header("Location", target)
                wire.end_headers()

            message = self.refused(errors.BadReply, FakeRest(moved))
            shown = shown or "https://vae.example.com"
            self.assertRegex(
                message, f"HTTP {code}, a redirection: give .*URL '{shown}"
            )
            self.assertNotIn("pw", message)
            self.assertNotIn("/v1", message)

    def test_quotes_what_is_odd_in_a_path(self):
        paths = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                paths.append(self.path)
                self.send_error(500)

            def log_message(self, *arguments):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            server.timeout = 5
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with self.assertRaises(errors.ServerError):
                Client(
                    f"http://127.0.0.1:{server.server_port}/\u00fc/a%20b/",
                    model="a b/\u00e9:?",
                    label="\u00df/",
                ).status()
            thread.join()
        self.assertEqual(
            paths,
            [
                "/%C3%BC/a%20b/v1/models/a%20b%2F%C3%A9%3A%3F"
                "/labels/%C3%9F%2F/metadata"
            ],
        )

    def test_hears_a_server_that_refuses_a_large_body(self):
        def refuse(server):
            connection, _ = server.accept()
            connection.recv(1)
            connection.sendall(
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge"
            )
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            connection.close()

        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=refuse, args=(server,))
            thread.start()
            with Client(
                f"http://127.0.0.1:{server.getsockname()[1]}", retries=0
            ) as client:
                client._transport._signatures = {"points": {"outputs": {}}}
                seeds = {"seed": np.arange(10**6)}
                with self.assertRaisesRegex(errors.MessageTooLarge, "large"):
                    client._transport.predict("points", seeds)
            thread.join()

    @hypothesis.settings(max_examples=100, deadline=None)
    @hypothesis.given(content=st.binary() | st.text().map(str.encode))
    def test_any_bytes_are_an_answer_or_a_serving_error(self, content):
        with mock.patch.object(
            Rest, "_transfer", return_value=(200, content, None)
        ):
            transport = Client()._transport
            for ask in (transport.status, transport.signatures):
                with contextlib.suppress(errors.ServingError):
                    ask()

    def test_a_connection_that_breaks_is_unavailable(self):
        def cut(wire):
            wire.reply(200, '{"outputs": ', length=100)

        def cut_chunks(wire):
            wire.protocol_version = "HTTP/1.1"
            wire.send_response(200)
            wire.send_header("Transfer-Encoding", "chunked")
            wire.end_headers()
            wire.wfile.write(b"ff\r\n{")
            wire.close_connection = True

        def hang_up(wire):
            wire.connection.shutdown(socket.SHUT_RDWR)

        good = {"bare": [[1.0, 2.0], [3.0, 4.0]]}
        for answer in (cut, cut_chunks, hang_up):
            self.refused(errors.Unavailable, FakeRest(answer))
            with connected(FakeRest(answer, good), retries=1) as transport:
                transport.predict("points", SEED)

    def test_reads_chunks(self):
        def chunks(wire):
            wire.protocol_version = "HTTP/1.1"
            wire.send_response(200)
            wire.send_header("Transfer-Encoding", "chunked")
            wire.end_headers()
            for part in (b'{"outputs": [[1, 2],', b"[3, 4]]}", b""):
                wire.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

        with connected(FakeRest(chunks)) as transport:
            answer = transport.predict("points", SEED)
        self.assertAllEqual(answer["z"], [[1, 2], [3, 4]])

    def test_no_answer_in_time(self):
        over = threading.Event()
        self.addCleanup(over.set)

        def sleep(wire):
            over.wait(10)

        def dribble(wire):
            wire.send_response(200)
            wire.send_header("Content-Length", 50)
            wire.end_headers()
            with contextlib.suppress(OSError):  # The client goes.
                while not over.wait(0.1):
                    wire.wfile.write(b" ")

        for answer in (sleep, dribble):
            start = time.monotonic()
            message = self.refused(
                errors.DeadlineExceeded,
                FakeRest(answer),
                timeout=0.5,
                retries=3,
            )
            self.assertIn("none in 0.5 s", message)
            self.assertBetween(time.monotonic() - start, 0.4, 2)
