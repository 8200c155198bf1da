"""What the page asks for, answered by an endpoint and by the arithmetic of
planes and ways."""

import base64
import importlib.resources
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vae_tf.explorer import planes
from vae_tf.explorer.survey import Survey
from vae_tf.pictures.latent_points import axis, interpolation
from vae_tf.serving.client import Client
from vae_tf.serving.errors import InvalidRequest, NotFound, ServingError
from vae_tf.settings import UserError

HOSTS = ["127.0.0.1", "localhost"]  # no page from elsewhere speaks to it
MAX_POINTS = 400  # of an axis or a way
FRAME_MILLISECONDS = 80
SHORTEST_SIDE = 196  # pixels of an animation


class _Page(StaticFiles):
    def file_response(self, *args, **kwargs) -> Response:
        response = super().file_response(*args, **kwargs)
        # Or a browser mixes the modules of two versions.
        response.headers["Cache-Control"] = "no-cache"
        return response


class Explorer:
    """The answers, of one endpoint.

    Args:
      client: of the endpoint.
      seen: `survey` of it.
      about: what the page says of the model: see `__main__`.
    """

    def __init__(self, client: Client, seen: Survey, about: dict[str, Any]):
        self.client, self.seen, self.about = client, seen, about

    def application(self) -> Starlette:
        """An ASGI application."""
        page = importlib.resources.files("vae_tf.explorer") / "page"
        return Starlette(
            routes=[
                Route("/model", self.model),
                Route("/plane", self.plane),
                Route("/image/{number:int}", self.image),
                Route("/axis", self.axis),
                *(
                    Route(path, _posted(answer), methods=["POST"])
                    for path, answer in (
                        ("/way", self.way),
                        ("/animation.gif", self.animation),
                        # As TensorFlow Serving has it.
                        ("/v1/models/{model}:predict", self.predict),
                    )
                ),
                Mount("/", _Page(directory=str(page), html=True)),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
            exception_handlers={
                UserError: _refused,
                ServingError: _refused,
            },
        )

    def model(self, request: Request) -> Response:
        """What there is to walk through."""
        seen = self.seen
        count, latent_dim = seen.mean.shape
        return _json(
            self.about
            | {
                "latent_dim": latent_dim,
                "image_shape": seen.images.shape[1:],
                "signatures": sorted(self.client.signatures()),
                "count": count,
                "are_held_out": seen.are_held_out,
                "classes": None
                if seen.labels is None
                else np.unique(seen.labels),
                "per_dimension": seen.per_dimension,
                "per_dimension_name": seen.per_dimension_name,
                "middle": seen.mean.mean(0),
            }
        )

    def plane(self, request: Request) -> Response:
        """`?x=0&y=1`: two dimensions; without them, the principal plane."""
        seen, query = self.seen, request.query_params
        latent_dim = seen.mean.shape[1]
        if "x" in query or latent_dim == 1:
            plane = planes.coordinates(
                _integer(query.get("x", "0"), "x"),
                _integer(query.get("y", "0"), "y"),
                latent_dim,
            )
        else:
            plane = planes.principal(seen.mean)
        means = plane.of(seen.mean)
        limit = planes.limit_of(means)
        return _json(
            {
                "origin": plane.origin,
                "axes": plane.axes,
                "limit": limit,
                "means": np.round(means, 4),
                "samples": None
                if seen.sample is None
                else np.round(plane.of(seen.sample), 4),
                "labels": seen.labels,
                "prior": np.round(plane.of(seen.prior), 4),
                "middle_of_prior": plane.of(np.zeros((1, latent_dim)))[0],
                "contours": []
                if latent_dim == 1
                else planes.contours(
                    means, plane.covariances(seen.stddev), limit
                ),
            }
        )

    def image(self, request: Request) -> Response:
        """One of the images that are points."""
        number, seen = request.path_params["number"], self.seen
        if number >= len(seen.images):
            raise NotFound(
                f"image: expected a number below {len(seen.images)}, received "
                f"{number}."
            )
        return _json(
            {
                "image": seen.images[number],
                "label": None if seen.labels is None else seen.labels[number],
            }
        )

    def axis(self, request: Request) -> Response:
        """`?points=15&spacing=equal`: values along an axis of a grid."""
        query = request.query_params
        points = _integer(query.get("points", ""), "points", 1, MAX_POINTS)
        values = axis(points, query.get("spacing", "equal"))
        return _json({"values": values})

    def way(self, given: dict[str, Any]) -> Response:
        """{"start", "stop", "points", "path"}: z along it."""
        try:
            start, stop = (
                np.array(given[key], np.float64) for key in ("start", "stop")
            )
            if start.shape != stop.shape or start.ndim != 1:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise InvalidRequest(
                "start, stop: expected two z [D], received others."
            ) from None
        points = _integer(given.get("points", ""), "points", 2, MAX_POINTS)
        path = given.get("path", "linear")
        return _json({"z": interpolation(start, stop, points, path)})

    def predict(self, given: dict[str, Any]) -> Response:
        """{"signature_name", "inputs"}, as TensorFlow Serving takes it."""
        inputs = given.get("inputs")
        name = given.get("signature_name", "serving_default")
        if not isinstance(inputs, dict) or not isinstance(name, str):
            raise InvalidRequest(
                'signature_name, inputs: expected a name and {"name": rows}, '
                "received others."
            )
        inputs = {key: _unpacked(rows) for key, rows in inputs.items()}
        outputs = self.client.predict(name, **inputs)
        # The server leaves out a single name.
        bare = len(outputs) == 1
        return _json(
            {"outputs": next(iter(outputs.values())) if bare else outputs}
        )

    def animation(self, given: dict[str, Any]) -> Response:
        """{"z"}: what is decoded of each, there and back, as a GIF."""
        z = given.get("z", [])
        if not isinstance(z, list) or len(z) > MAX_POINTS:
            raise InvalidRequest(
                f"z: expected at most {MAX_POINTS} rows, received others."
            )
        levels = np.round(255 * np.clip(self.client.decode(z), 0, 1))
        larger = max(1, SHORTEST_SIDE // min(levels.shape[1:3]))
        levels = levels.astype(np.uint8).repeat(larger, 1).repeat(larger, 2)
        if levels.shape[-1] in (1, 2):  # grey
            levels = levels[..., 0]
        else:
            levels = levels[..., :3]
        frames = [Image.fromarray(one) for one in levels]
        file = io.BytesIO()
        frames[0].save(
            file,
            "GIF",
            save_all=True,
            append_images=[*frames[1:], *frames[-2:0:-1]],
            duration=FRAME_MILLISECONDS,
            loop=0,
        )
        return Response(file.getvalue(), media_type="image/gif")


def _posted(answer: Callable[[dict[str, Any]], Response]):
    """The endpoint of an answer to JSON, in a thread: a model blocks."""

    async def endpoint(request: Request) -> Response:
        # A page from elsewhere can send without being asked, and not read.
        site = request.headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none"):
            return JSONResponse({"error": "another site's page asked"}, 403)
        try:
            given = json.loads(await request.body())
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise InvalidRequest("body: expected a JSON object, received none.")
        return await run_in_threadpool(answer, given)

    return endpoint


def _refused(request: Request, error: Exception) -> Response:
    wrong = isinstance(error, UserError)
    code = 400 if wrong else 404 if isinstance(error, NotFound) else 502
    return JSONResponse({"error": str(error)}, code)


def _json(content: dict[str, Any]) -> Response:
    """JSON, and strict: what is no number is null, which a page can read."""
    return JSONResponse({key: _plain(one) for key, one in content.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if not isinstance(value, np.ndarray | np.generic):
        return value
    array = np.asarray(value)
    if array.dtype == object:  # of bytes
        return [{"b64": base64.b64encode(one).decode()} for one in array]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = ~np.isfinite(array)
        array = array.astype(object)
        array[wrong] = None
    return array.tolist()


def _unpacked(rows: Any) -> Any:
    """Files out of JSON."""
    if not isinstance(rows, list):
        return rows
    try:
        return [
            base64.b64decode(one["b64"]) if isinstance(one, dict) else one
            for one in rows
        ]
    except (KeyError, TypeError, ValueError):
        raise InvalidRequest(
            'inputs: expected files as {"b64": text}, received others.'
        ) from None


def _integer(
    value: Any, name: str, least: int = 0, most: int = 2**31 - 1
) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if not least <= number <= most:
        raise InvalidRequest(
            f"{name}: expected an integer of {least} to {most}, received "
            f"{value!r}."
        )
    return number
