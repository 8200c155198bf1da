"""The explorer's page of one model as files, for a site that has no server.

What the page fetches is asked of the explorer now and kept; what it asks of the
model is computed in the browser (still.js), by the weights kept beside it."""

import importlib.resources
import json
import pathlib
import shutil
import tempfile

import numpy as np
from starlette.testclient import TestClient

import vae_tf
from vae_tf.explorer.server import Explorer
from vae_tf.explorer.survey import survey
from vae_tf.serving.client import Client

HERE = pathlib.Path(__file__).parent
# What still.js computes.
SIGNATURES = (
    "decode",
    "decode_sample",
    "encode",
    "encode_sample",
    "explain",
    "reconstruct",
    "sample",
)
GRIDS = range(2, 41)  # images along a side, as the page has them
SCRIPT = '<script type="module" src="main.js">'


def write(vae, images, labels, folder) -> None:
    """Args:
    vae: in two dimensions, with MLPs of relu, a mean-field posterior, a
      standard-normal prior and a Bernoulli likelihood.
    images: those held out `[N, H, W, 1]`.
    labels: their classes `[N]`.
    folder: of the page, replaced.
    """
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    page = importlib.resources.files("vae_tf.explorer") / "page"
    with importlib.resources.as_file(page) as source:
        shutil.copytree(source, folder)
    shutil.copy(HERE / "still.js", folder)
    index = folder / "index.html"
    text = index.read_text()
    if SCRIPT not in text:
        raise ValueError(f"{SCRIPT} is not in the explorer's page")
    still = '<script src="still.js"></script>\n'
    index.write_text(text.replace(SCRIPT, still + SCRIPT))
    with tempfile.TemporaryDirectory() as place:
        version = vae_tf.export(vae, place)
        with Client(f"bundle:{version}") as client:
            answers = _asked(client, images, labels)
    answers["weights"] = _weights(vae)
    (folder / "answers.json").write_text(json.dumps(answers))


def _asked(client, images, labels) -> dict:
    about = {
        "source": "scikit-learn's digits",
        "url": "http://127.0.0.1:8501",
        "model": "vae",
        "likelihood": "bernoulli",
        "posterior": "mean_field",
        "prior": "standard_normal",
        "num_importance_samples": 64,
    }
    seen = survey(client, np.asarray(images), labels)
    explorer = Explorer(client, seen, about).application()
    paths = [
        "model",
        "plane",
        "plane?x=0&y=1",
        "plane?x=1&y=0",
        *(f"image/{number}" for number in range(len(images))),
        *(
            f"axis?points={points}&spacing={spacing}"
            for points in GRIDS
            for spacing in ("equal", "probability")
        ),
    ]
    with TestClient(explorer, base_url="http://localhost") as asked:
        answers = {path: asked.get(f"/{path}").json() for path in paths}
    answers["model"]["signatures"] = SIGNATURES
    return answers


def _weights(vae) -> dict:
    def rounded(weight):
        return np.round(np.asarray(weight, np.float64), 5).tolist()

    def dense(layer):
        return {"kernel": rounded(layer.kernel), "bias": rounded(layer.bias)}

    likelihood = vae.decoder.likelihood
    return {
        "encoder": [
            *map(dense, vae.encoder.network.hidden),
            dense(vae.encoder.posterior.parameters),
        ],
        "decoder": [
            *map(dense, vae.decoder.network.hidden),
            {
                "kernel": rounded(likelihood.linear.kernel),
                "bias": rounded(np.ravel(likelihood.bias)),
            },
        ],
    }
