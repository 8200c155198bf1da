import socket
from unittest import mock

import grpc
import numpy as np
from fakes import SEED, FakeGrpc, TransportTestCase, connected

from vae_tf.serving import client, errors


class GrpcTransportTest(TransportTestCase):
    def test_grpc_sends_the_bytes_of_an_array(self):
        fake = FakeGrpc({"z": np.zeros((2, 2), np.float32)})
        with connected(fake) as transport:
            transport.predict("points", SEED)
            transport.predict("points", SEED, version=7)
        first, second = fake.asked
        self.assertEqual(first.model_spec.name, "vae")
        self.assertEqual(first.model_spec.signature_name, "points")
        self.assertFalse(first.model_spec.HasField("version"))
        self.assertEqual(second.model_spec.version.value, 7)
        self.assertEqual(
            first.inputs["seed"].tensor_content, SEED["seed"].tobytes()
        )

    def test_no_answer_of_grpc_in_time(self):
        # A server that takes connections, and no more.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            transport = client.connect(
                f"grpc://127.0.0.1:{silent.getsockname()[1]}",
                "vae",
                timeout=0.5,
                retries=3,
                max_message_bytes=2**20,
            )
            with self.assertRaises(errors.DeadlineExceeded):
                transport.status()
            transport.close()

    def test_a_host_is_no_scheme(self):
        with mock.patch.object(grpc, "insecure_channel") as channel:
            for host in ("unix", "[::1]"):
                client.Client(f"grpc://{host}:8500")
                self.assertEqual(
                    channel.call_args.args[0], f"dns:///{host}:8500"
                )
