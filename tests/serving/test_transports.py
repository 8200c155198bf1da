import base64
import contextlib
import json
import os
import pathlib
import socket
import threading
import time
from unittest import mock

import grpc
import numpy as np
from absl.testing import parameterized
from fakes import (
    FAKES,
    SEED,
    WIRES,
    FakeGrpc,
    FakeRest,
    TransportTestCase,
    certificate,
    connected,
    signature_def,
)

from vae_tf.serving import client, errors, rest_transport, transports
from vae_tf.settings import UserError


class TransportsTest(TransportTestCase):
    @parameterized.parameters(*WIRES)
    def test_reads_signatures_and_states(self, wire):
        with connected(FAKES[wire]({})) as transport:
            self.assertEqual(transport.status(), {7: "AVAILABLE"})
            self.assertEqual(
                transport.signatures(),
                {
                    "points": {
                        "inputs": {"seed": ("int64", (-1,))},
                        "outputs": {"z": ("float32", (-1, 2))},
                    },
                    "pictures": {
                        "inputs": {"seed": ("int64", (-1,))},
                        "outputs": {"image_bytes": ("string", (-1,))},
                    },
                    "both": {
                        "inputs": {"seed": ("int64", (-1,))},
                        "outputs": {
                            "z": ("float32", (-1, 2)),
                            "elbo": ("float32", (-1,)),
                        },
                    },
                },
            )

    @parameterized.parameters(*WIRES)
    def test_a_state_says_why_a_version_failed(self, wire):
        fake = FAKES[wire]({})
        fake.states = [("END", "NOT_FOUND", "no variables")]
        with connected(fake) as transport:
            states = transport.status()
        self.assertEqual(states, {7: "END"})
        self.assertEqual(states[7].error, "NOT_FOUND: no variables")
        with connected(FAKES[wire]({})) as transport:
            self.assertEqual(transport.status()[7].error, "")
        fake.answers = [{"rest": 404, "grpc": "NOT_FOUND"}[wire]]
        self.assertIn("no variables", self.refused(errors.Unavailable, fake))

    @parameterized.product(
        wire=WIRES,
        case=(
            ({}, "", [""]),
            ({"version": 9}, "/versions/9", ["/versions/9"]),
            # Servers say all versions' states where a label is named.
            (
                {"label": "stable"},
                "/labels/stable",
                ["/labels/stable/metadata", "/versions/7"],
            ),
        ),
    )
    def test_asks_the_version_that_is_named(self, wire, case):
        settings, place, asked_of_status = case
        fake = FAKES[wire]({"z": np.ones((2, 2)).tolist()})
        with connected(fake, **settings) as transport:
            transport.predict("points", SEED)
            transport.predict("points", SEED, version=3)
            transport.status()
            answering = transport.answering()
        self.assertEqual(
            fake.places[:3],
            [f"{place}/metadata", f"{place}:predict", "/versions/3:predict"],
        )
        self.assertEqual(
            fake.places[3:][: len(asked_of_status)], asked_of_status
        )
        self.assertEqual(answering, settings.get("version", 7))

    @parameterized.product(
        wire=WIRES,
        case=(
            ({"token": "s3cret"}, "", "Bearer s3cret"),
            ({}, "me:s3%20cret@", "Basic bWU6czMgY3JldA=="),
            ({"headers": {"Authorization": "Key k"}}, "", "Key k"),
        ),
    )
    def test_says_who_asks_with_every_request(self, wire, case):
        settings, user, expected = case
        fake = FAKES[wire]({"z": np.ones((2, 2)).tolist()})
        with connected(fake, user, **settings) as transport:
            transport.predict("points", SEED)
            transport.status()
        self.assertLen(fake.headers, 3)
        for headers in fake.headers:
            self.assertEqual(headers["authorization"], expected)

    @parameterized.parameters(*WIRES)
    def test_sends_headers_and_the_host_that_a_gateway_looks_for(self, wire):
        fake = FAKES[wire]({})
        headers = {"Host": "vae.example.com", "X-Who": "me"}
        with connected(fake, headers=headers) as transport:
            transport.status()
        self.assertEqual(fake.headers[0]["host"], "vae.example.com")
        self.assertEqual(fake.headers[0]["x-who"], "me")

    @parameterized.parameters(*WIRES)
    def test_no_error_says_a_secret(self, wire):
        def echo(wire):
            if wire.__class__.__name__ == "Handler":
                return wire.reply(400, wire.headers["Authorization"])
            sent = dict(wire.invocation_metadata())["authorization"]
            wire.abort(grpc.StatusCode.INVALID_ARGUMENT, sent)

        for settings, user, secrets in (
            ({"token": "s3cret"}, "", ["s3cret"]),
            ({}, "me:s3%20cret@", ["s3 cret", "bWU6czMgY3JldA", "s3%20"]),
            ({"headers": {"authorization": "Key k3y"}}, "", ["k3y"]),
        ):
            with connected(FAKES[wire](echo), user, **settings) as transport:
                with self.assertRaises(errors.InvalidRequest) as caught:
                    transport.predict("points", SEED)
                said = str(caught.exception) + repr(transport._endpoint)
            self.assertIn("***", said)
            for secret in secrets:
                self.assertNotIn(secret, said)

    def test_no_excerpt_of_a_reply_says_a_secret(self):
        fake = FakeRest(lambda wire: wire.reply(200, '{"outputs": "s3cret"}'))
        message = self.refused(errors.BadReply, fake, token="s3cret")
        self.assertIn("***", message)
        self.assertNotIn("s3cret", message)

    @parameterized.parameters(*WIRES)
    def test_speaks_tls_with_those_it_trusts(self, wire):
        path = pathlib.Path(self.create_tempdir().full_path)
        tls = certificate(path)
        for headers in ({}, {"Host": "vae.example.com"}):
            fake = FAKES[wire]({}, tls=tls)
            settings = {"headers": headers, "timeout": 3.0}
            with connected(fake, ca_file=tls[0], **settings) as transport:
                self.assertEqual(transport.status(), {7: "AVAILABLE"})
            # Of an authority that nobody knows, and of another host.
            with connected(fake, **settings) as transport:
                with self.assertRaises(errors.Unavailable):
                    transport.status()
            with fake.started() as url:
                transport = client.connect(
                    url.replace("127.0.0.1", "localhost"),
                    "vae",
                    retries=0,
                    max_message_bytes=2**20,
                    ca_file=tls[0],
                    **settings,
                )
                with self.assertRaises(errors.Unavailable):
                    transport.status()
                transport.close()

    @parameterized.parameters(*WIRES)
    def test_uses_no_proxy_of_the_environment(self, wire):
        with socket.create_server(("127.0.0.1", 0)) as free:
            proxy = f"http://127.0.0.1:{free.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
        environment = dict.fromkeys(names, proxy) | {"no_proxy": ""}
        with mock.patch.dict(os.environ, environment):
            with connected(FAKES[wire]({}), timeout=3.0) as transport:
                self.assertEqual(transport.status(), {7: "AVAILABLE"})

    @parameterized.parameters(*WIRES)
    def test_counts_the_rows_that_fit(self, wire):
        # z [N, 2] and elbo [N] of float32, seed [N] of int64
        row = {"rest": 3 * 32, "grpc": 3 * 4}[wire]
        for room, rows in ((10 * row, 10), (10 * row + row - 1, 10), (1, 1)):
            with connected(
                FAKES[wire]({}), max_message_bytes=1024 + room
            ) as transport:
                transport._signatures = {}
                with mock.patch.object(
                    transport,
                    "_require",
                    return_value={
                        "z": ("float32", (-1, 2)),
                        "elbo": ("float32", (-1,)),
                        "image_bytes": ("string", (-1,)),
                    },
                ):
                    fit = transport.rows_that_fit("both", SEED)
            self.assertEqual(fit, rows)

    def test_an_estimate_of_json_is_no_less_than_json(self):
        rng = np.random.default_rng(0)
        bits = rng.integers(0, 2**32, (50, 9, 7, 1), np.uint32)
        for values in (
            bits.view(np.float32),
            np.full((50, 2), -np.finfo(np.float32).smallest_normal),
            np.full(50, np.iinfo(np.int64).min),
            np.full((50, 1, 1, 1), -1.1754944e-38, np.float32),
        ):
            size = len(json.dumps(values.tolist()))
            self.assertLess(size, values.size * rest_transport.VALUE_BYTES)

    @parameterized.parameters(*WIRES)
    def test_a_number_of_another_type_is_a_bad_reply(self, wire):
        for z in (
            [[True, False], [True, True]],
            [["0.5", "1"], ["1", "1"]],
        ):
            self.refused(errors.BadReply, FAKES[wire]({"z": z}))

    @parameterized.parameters(*WIRES)
    def test_remembers_signatures_until_told(self, wire):
        fake = FAKES[wire]({})
        fake.signature_defs = [signature_def(2), signature_def(3)]
        with connected(fake) as transport:
            for _ in range(2):
                outputs = transport.signatures()["points"]["outputs"]
                self.assertEqual(outputs["z"][1], (-1, 2))
            outputs = transport.signatures(refresh=True)["points"]["outputs"]
            self.assertEqual(outputs["z"][1], (-1, 3))

    @parameterized.parameters(*WIRES)
    def test_strings_are_arrays_of_bytes(self, wire):
        files = [b"\x89PNG\0\xff\0", b""]
        answer = {"image_bytes": np.array(files, object)}
        if wire == "rest":
            texts = [base64.b64encode(file).decode() for file in files]
            answer = {"bare": [{"b64": text} for text in texts]}
        with connected(FAKES[wire](answer)) as transport:
            got = transport.predict("pictures", SEED)["image_bytes"]
        self.assertEqual(got.dtype, object)
        self.assertEqual(got.tolist(), files)

    @parameterized.parameters(
        (400, "INVALID_ARGUMENT", errors.InvalidRequest),
        (400, "FAILED_PRECONDITION", errors.InvalidRequest),
        (400, "OUT_OF_RANGE", errors.InvalidRequest),
        (401, "UNAUTHENTICATED", errors.PermissionDenied),
        (403, "PERMISSION_DENIED", errors.PermissionDenied),
        (404, "NOT_FOUND", errors.NotFound),
        (429, "RESOURCE_EXHAUSTED", errors.ResourceExhausted),
        (503, "UNAVAILABLE", errors.Unavailable),
        (504, "DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        (500, "INTERNAL", errors.ServerError),
        (501, "UNIMPLEMENTED", errors.ServerError),
    )
    def test_both_fail_alike(self, code, name, kind):
        for fake in (FakeRest(code), FakeGrpc(name)):
            message = self.refused(kind, fake)
            self.assertRegex(message, "expected an answer of .*'vae', received")
            self.assertRegex(message, f"({code}|{name}): .*not .*this")

    @parameterized.parameters(*WIRES)
    def test_a_mistake_is_a_value_error_and_not_asked_again(self, wire):
        fake = FAKES[wire]({"rest": 400, "grpc": "INVALID_ARGUMENT"}[wire])
        with connected(fake, retries=3) as transport:
            with self.assertRaises(UserError):
                transport.predict("points", SEED)
        self.assertLen(fake.asked, 1)

    @parameterized.parameters(*WIRES)
    def test_asks_again_while_unavailable(self, wire):
        error = {"rest": 503, "grpc": "UNAVAILABLE"}[wire]
        z = [[1.0, 2.0], [3.0, 4.0]]
        with mock.patch.object(transports, "FIRST_PAUSE", 0.01):
            fake = FAKES[wire](error, error, {"z": np.float32(z).tolist()})
            with connected(fake, retries=2) as transport:
                answer = transport.predict("points", SEED)
            self.assertAllEqual(answer["z"], z)
            self.assertLen(fake.asked, 3)
            fake = FAKES[wire](error)
            self.refused(errors.Unavailable, fake, retries=2)
            self.assertLen(fake.asked, 3)

    @parameterized.parameters(*WIRES)
    def test_pauses_longer_each_time_and_never_past_the_timeout(self, wire):
        fake = FAKES[wire]({"rest": 503, "grpc": "UNAVAILABLE"}[wire])
        start, pauses, sleep = time.monotonic(), [], time.sleep

        def slept(seconds):
            pauses.append(seconds)
            sleep(seconds)

        with (
            mock.patch.object(transports, "FIRST_PAUSE", 0.1),
            mock.patch.object(transports.time, "sleep", slept),
        ):
            self.refused(errors.Unavailable, fake, retries=99, timeout=1)
        self.assertLess(time.monotonic() - start, 1.5)
        self.assertBetween(len(pauses), 2, 4)
        for place, pause in enumerate(pauses):
            self.assertBetween(pause, 0.05 * 2**place, 0.1 * 2**place)

    @parameterized.parameters(*WIRES)
    def test_a_model_that_loads_is_unavailable(self, wire):
        error = {"rest": 404, "grpc": "NOT_FOUND"}[wire]
        fake = FAKES[wire](error)
        fake.states = ["LOADING"]
        message = self.refused(errors.Unavailable, fake)
        self.assertRegex(message, "expected .*AVAILABLE, received.*LOADING")
        fake = FAKES[wire](error, {"z": np.zeros((2, 2)).tolist()})
        fake.states = ["LOADING"]
        with connected(fake, retries=1) as transport:
            transport.predict("points", SEED)

    @parameterized.parameters(*WIRES)
    def test_an_unknown_signature_is_not_sent(self, wire):
        fake = FAKES[wire]({})
        message = self.refused(errors.NotFound, fake, signature="decode")
        self.assertRegex(message, "expected one of both, .*received 'decode'")
        self.assertEmpty(fake.asked)

    @parameterized.product(
        wire=WIRES,
        answer=(
            {"z": [[1.0, 2.0]]},
            {"z": [[1.0], [2.0]]},
            {"z": [1.0, 2.0]},
            {"image": [[1.0, 2.0], [3.0, 4.0]]},
        ),
    )
    def test_other_outputs_are_a_bad_reply(self, wire, answer):
        self.refused(errors.BadReply, FAKES[wire](answer))

    @parameterized.parameters(*WIRES)
    def test_reads_the_answer_of_a_version_with_other_shapes(self, wire):
        fake = FAKES[wire]({"z": np.ones((2, 3)).tolist()})
        fake.signature_defs = [signature_def(2), signature_def(3)]
        with connected(fake) as transport:
            transport.signatures()
            self.assertAllEqual(
                transport.predict("points", SEED)["z"], np.ones((2, 3))
            )
            self.assertLen(fake.asked, 1)

    @parameterized.parameters(*WIRES)
    def test_finds_a_signature_of_a_new_version(self, wire):
        fake = FAKES[wire]({"z": np.ones((2, 2)).tolist()})
        fewer = signature_def()
        del fewer["signature_def"]["points"]
        fake.signature_defs = [fewer, signature_def()]
        with connected(fake) as transport:
            self.assertNotIn("points", transport.signatures())
            transport.predict("points", SEED)

    def test_signatures_without_tensors_are_a_bad_reply(self):
        fake, points = FakeRest({}), {"inputs": [], "outputs": {}}
        fake.signature_defs = [{"signature_def": {"points": points}}]
        self.refused(errors.BadReply, fake)

    def test_no_server_is_unavailable(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for scheme in ("http", "grpc"):
            transport = client.connect(
                f"{scheme}://127.0.0.1:{port}",
                "vae",
                timeout=10.0,
                retries=0,
                max_message_bytes=2**20,
            )
            with self.assertRaisesRegex(
                errors.Unavailable, f"127.0.0.1:{port}"
            ):
                transport.status()

    def test_a_large_reply_is_named_and_not_read(self):
        def chunks(wire):
            wire.protocol_version = "HTTP/1.1"
            wire.send_response(200)
            wire.send_header("Transfer-Encoding", "chunked")
            wire.end_headers()
            with contextlib.suppress(OSError):  # The client goes.
                for _ in range(1000):
                    wire.wfile.write(b"1000\r\n%s\r\n" % (b" " * 4096))

        def announced(wire):
            wire.reply(200, "{}", length=10**9)

        large = {"z": np.zeros((2, 50_000), np.float32).tolist()}
        for fake in (
            FakeRest(large),
            FakeRest(chunks),
            FakeRest(announced),
            FakeGrpc(large),
        ):
            message = self.refused(
                errors.MessageTooLarge, fake, max_message_bytes=20_000
            )
            self.assertRegex(message, "20000|20,000")

    @parameterized.parameters(*WIRES)
    def test_a_large_request_is_not_sent(self, wire):
        fake = FAKES[wire]({})
        with connected(fake, max_message_bytes=5000) as transport:
            with self.assertRaisesRegex(
                errors.MessageTooLarge, "request of at most 5000 bytes"
            ):
                transport.predict("points", {"seed": np.arange(5000)})
        self.assertEmpty(fake.asked)

    def test_grpc_looks_often_for_a_server_that_was_gone(self):
        looks = []

        def hang_up(server):
            with contextlib.suppress(OSError):  # of its timeout
                while True:
                    server.accept()[0].close()
                    looks.append(time.monotonic())

        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(1)  # from one look to the next
            thread = threading.Thread(target=hang_up, args=(server,))
            thread.start()
            transport = client.connect(
                f"grpc://127.0.0.1:{server.getsockname()[1]}",
                "vae",
                timeout=5.0,
                retries=0,
                max_message_bytes=2**20,
            )
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                with self.assertRaises(errors.Unavailable):
                    transport.status()
                time.sleep(0.05)
            transport.close()
            thread.join()
        self.assertGreaterEqual(len(looks), 4)

    def test_a_closed_connection_answers_no_more(self):
        with connected(FakeGrpc({})) as transport:
            transport.status()
            transport.close()
            with self.assertRaisesRegex(ValueError, "closed"):
                transport.status()
