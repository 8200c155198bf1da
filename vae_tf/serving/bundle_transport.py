"""A bundle on this machine, answered by this process as a server would answer:
in a session of TensorFlow's C library.
"""

import os
import pathlib

from google.protobuf import json_format

from vae_tf.serving import check, errors, versions
from vae_tf.serving.transports import Transport
from vae_tf.settings import UserError

SCHEME = "bundle:"


class Bundle(Transport):
    """`address` is `bundle:` and the path of a version, or of the directory
    that holds the versions, of which this is the highest.

    Raises:
      UserError: there is no bundle that runs.
    """

    CODES = {
        3: errors.InvalidRequest,
        5: errors.NotFound,
        8: errors.ResourceExhausted,
        9: errors.InvalidRequest,
        11: errors.InvalidRequest,
    }

    def __init__(self, address: str, model: str, **settings):
        super().__init__(address, model, **settings)
        self.path = version_of(address.removeprefix(SCHEME))
        try:
            self._session = check.Session(self.path)
        except (check.SessionError, check.CheckError) as error:
            raise UserError(
                f"--bundle: expected one that TensorFlow's C library loads, "
                f"received {str(self.path)!r} ({error})."
            ) from None

    def _ask_status(self, deadline, version):
        return {
            "model_version_status": [
                {"version": self._version, "state": "AVAILABLE"}
            ]
        }

    def _ask_metadata(self, deadline):
        return {
            "version": self._version,
            "signature_def": {
                name: json_format.MessageToDict(
                    signature, preserving_proto_field_name=True
                )
                for name, signature in self._session.signatures.items()
            },
        }

    def _ask_predict(self, deadline, signature, inputs, version):
        if version not in (None, self._version):
            raise self._failed(errors.NotFound, f"version {version}")
        try:
            return self._session.run(signature, inputs)
        except check.SessionError as error:
            raise self._failed(
                self.CODES.get(error.code, errors.ServerError), error
            ) from None

    @property
    def _version(self) -> int:
        """Its number; 1 of a bundle that lies under another name."""
        name = self.path.name
        return int(name) if name.isascii() and name.isdigit() else 1


def version_of(path: str | os.PathLike) -> pathlib.Path:
    """The bundle that is meant by a path, its own or that of its versions.

    Raises:
      UserError: there is none.
    """
    path = pathlib.Path(path)
    try:
        if (path / "saved_model.pb").is_file():
            return path
        found = versions.published(path)
        if found and (found[max(found)] / "saved_model.pb").is_file():
            return found[max(found)]
    except OSError:
        pass
    raise UserError(
        "--bundle: expected an exported version, or the directory of several, "
        f"received {str(path)!r} (python export.py writes one)."
    )
