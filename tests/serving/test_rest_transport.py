import contextlib
import socket
import subprocess
import sys
import threading
import time

import numpy as np
from absl.testing import parameterized
from fakes import SEED, FakeRest, TransportTestCase, connected

from vae_tf.serving import errors


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

    def test_rest_needs_no_tensorflow(self):
        with FakeRest({"z": [[1.0, 2.0], [3.0, 4.0]]}).started() as url:
            code = (
                "import sys, numpy\n"
                "from vae_tf.serving import client\n"
                "t = client.connect(sys.argv[1], 'vae', timeout=9.0,\n"
                "    retries=0, max_message_bytes=10**6)\n"
                "t.predict('points', {'seed': numpy.arange(2)})\n"
                "sys.exit(bool({'tensorflow', 'keras', 'grpc'}\n"
                "    & set(sys.modules)))"
            )
            subprocess.run([sys.executable, "-c", code, url], check=True)
