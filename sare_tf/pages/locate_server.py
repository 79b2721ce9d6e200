"""The page that locates a photograph dropped on it: `locate --serve`.

    GET /           the page, with /locate.css and /locate.js
    POST /locate    a photograph as the body -> its answer, JSON

A photograph is sent as it is, without a form, so that there is no file name to
be trusted; nothing of it is kept. What is no JPEG or PNG, or too large, is
refused by its first bytes before it is decoded, one photograph at a time. The
page asks nothing of any other server, and no other page may ask anything of
this one: requests must name this host (against DNS rebinding) and come from its
own page.
"""

import functools
import http
import ipaddress
import json
import socket
import threading
import urllib.parse
from typing import Any

import numpy as np
import pandas as pd
from absl import logging

from sare_tf.dataset import image_refusal, manifest
from sare_tf.pages import evaluation_page
from sare_tf.search.locator import Answer, Gallery, Locator

try:
    import flask
    import waitress
    from werkzeug import exceptions
except ImportError as missing:
    raise ImportError(
        "Expected Flask and waitress for --serve. Received: "
        f'{missing}. Run pip install "sare_tf[web]".'
    ) from missing

_MOST_MATCHES = 50
# Connections at a time, each of which may hold a photograph; seconds that one
# may be silent.
_CONNECTIONS, _SILENCE_S = 32, 30
_THREADS = 4
# Matches farther from the first are not on its map, which shows this much at
# least to each side of it.
_MAP_FAR_M, _MAP_NEAR_M = 5000, 150
# Database images on a map: one for each cell of so many to a side.
_MAP_CELLS = 60
_KEPT_THUMBNAILS = 1024
# Where a scan of a JPEG begins; ten are usual. Each goes over the whole image,
# so that a small file of thousands would keep the decoder busy for hours.
_SCAN, _MOST_SCANS = b"\xff\xda", 64
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(
    locate: Locator,
    gallery: Gallery,
    *,
    k: int = 5,
    upload_bytes: int = 20 << 20,
    host: str = "127.0.0.1",
) -> flask.Flask:
    """Makes the page as a WSGI application.

    Args:
        locate: answers.
        gallery: has the images of the matches.
        k: matches of an answer, unless the request has another `?k=`.
        upload_bytes: size of a photograph, at most.
        host: what the server listens at: a name that requests may ask for,
            beside localhost and any address in numbers.
    """
    locate.check_k(k)
    app = flask.Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = upload_bytes
    pages = evaluation_page.environment()
    count = len(locate.index.manifest)
    # One model: answers are made one after the other, in bounded memory.
    busy = threading.Lock()

    @functools.lru_cache(maxsize=_KEPT_THUMBNAILS)
    def thumbnail(image_id: str) -> str | None:
        (encoded,) = gallery.read([image_id])
        if encoded is None:
            return None
        return evaluation_page.thumbnail(
            evaluation_page.Picture(encoded=encoded, name=image_id)
        )

    @app.before_request
    def check_where_from():
        if not _is_this_host(flask.request.host, host):
            flask.abort(403, "Open this page by its address or as localhost.")
        origin = flask.request.headers.get("Origin")
        site = flask.request.headers.get("Sec-Fetch-Site", "none")
        if flask.request.method == "POST" and (
            site not in ("same-origin", "none")
            or (origin and _host_of(origin) != flask.request.host)
        ):
            flask.abort(
                403, "Only this server's own page may send photographs."
            )

    @app.after_request
    def add_headers(response: flask.Response) -> flask.Response:
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(exceptions.HTTPException)
    def tell(error: exceptions.HTTPException) -> Any:
        message = error.description
        if error.code == 413:
            message = (
                f"The photograph is larger than {upload_bytes / 2**20:g} MiB: "
                "make it smaller."
            )
        if flask.request.path == "/locate":
            return _json({"error": message}, error.code)
        page = pages.get_template("locate_error.html")
        return page.render(title=error.name, message=message), error.code

    @app.errorhandler(Exception)
    def survive(error: Exception) -> Any:
        # The log has what is not shown.
        logging.exception("A request failed.")
        if isinstance(error, (ConnectionError, TimeoutError)):
            return tell(
                exceptions.ServiceUnavailable(
                    "The model's server does not answer; the log says why. "
                    "Try again later."
                )
            )
        return tell(
            exceptions.InternalServerError(
                "This photograph could not be answered; the log says why."
            )
        )

    @app.get("/")
    def show_page() -> str:
        return pages.get_template("locate.html").render(
            count=count, k=k, upload_bytes=upload_bytes
        )

    @app.get("/locate.css")
    def show_style() -> flask.Response:
        text = pages.get_template("locate.css").render()
        return flask.Response(text, mimetype="text/css")

    @app.get("/locate.js")
    def show_script() -> flask.Response:
        text = (evaluation_page.TEMPLATES / "locate.js").read_text(
            encoding="utf-8"
        )
        return flask.Response(text, mimetype="text/javascript")

    @app.post("/locate")
    def answer_photograph() -> flask.Response:
        wanted = _wanted(flask.request.args.get("k", str(k)), count)
        if flask.request.mimetype == "multipart/form-data":
            flask.abort(
                415,
                "Send the photograph itself, without a form: curl "
                "--data-binary @PHOTO.jpg.",
            )
        encoded = flask.request.get_data(cache=False)
        problem = image_refusal.header_problem(encoded)
        if not problem and encoded.count(_SCAN) > _MOST_SCANS:
            problem = f"a JPEG of more than {_MOST_SCANS} scans"
        if problem:
            flask.abort(
                415, f"Expected a JPEG or PNG photograph. Received: {problem}."
            )
        with busy:
            (answer,) = locate([encoded], k=wanted)
        if answer.error:
            flask.abort(422, f"This photograph cannot be used: {answer.error}.")
        result = answer.as_json()
        for match in result["matches"]:
            match["thumbnail"] = thumbnail(match["image_id"])
        result["map"] = map_of(answer, locate)
        return _json(result, 200)

    return app


def serve(app: flask.Flask, *, host: str, port: int) -> None:
    """Serves the page until it is interrupted.

    Args:
        app: the page.
        host: address or name to listen at.
        port: 0 for any that is free.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            "Expected an address of this machine with a free port. Received: "
            f"--host={host} --port={port} ({error}). Choose another --port."
        ) from error
    with listener:
        address, port, *_ = listener.getsockname()
        if not ipaddress.ip_address(address).is_loopback:
            logging.warning(
                "Whoever reaches %s sees the database's images, and can ask "
                "without a password and without encryption. --host=127.0.0.1 "
                "serves this machine alone.",
                host,
            )
        server = waitress.create_server(
            app,
            sockets=[listener],
            threads=_THREADS,
            connection_limit=_CONNECTIONS,
            channel_timeout=_SILENCE_S,
            # A little too much is answered by the page, more by waitress.
            max_request_body_size=2 * app.config["MAX_CONTENT_LENGTH"],
            ident=None,
        )
        shown = f"[{host}]" if ":" in host else host
        logging.info(
            "Open http://%s:%d in a browser. Ctrl-C ends it.", shown, port
        )
        try:
            server.run()
        finally:
            server.close()


def map_of(answer: Answer, locate: Locator) -> dict[str, Any] | None:
    """What is drawn around the first match, in metres of its UTM zone.

    Args:
        answer: what was found.
        locate: whose database is drawn.

    Returns:
        JSON: width_m and height_m; database, [[x, y]] of its images, from the
        lower left; matches, [x, y] of each match, None beyond the map. None
        where the first match has no position.
    """
    first = answer.matches[0]
    if first.utm_east_m is None:
        return None
    grids = manifest.grids(
        pd.DataFrame(
            [match.utm_zone for match in answer.matches], columns=["utm_zone"]
        )
    )
    points = np.array(
        [[match.utm_east_m, match.utm_north_m] for match in answer.matches],
        np.float64,
    )
    near = np.linalg.norm(points - points[0], axis=1) <= _MAP_FAR_M
    near &= grids == grids[0]
    corners = points[0] + np.array([[-1, -1], [1, 1]]) * _MAP_NEAR_M
    low, high = evaluation_page.frame(np.concatenate([points[near], corners]))
    places = locate.places
    inside = (places.positions >= low) & (places.positions <= high)
    inside = inside.all(axis=1) & (places.grids == grids[0])
    database = places.positions[inside] - low
    _, kept = np.unique(
        database // ((high - low)[0] / _MAP_CELLS), axis=0, return_index=True
    )
    width, height = (high - low).tolist()
    return {
        "width_m": width,
        "height_m": height,
        "database": database[np.sort(kept)].round(1).tolist(),
        "matches": [
            (point - low).round(1).tolist() if shown else None
            for point, shown in zip(points, near, strict=True)
        ],
    }


def _wanted(text: str, count: int) -> int:
    most = min(count, _MOST_MATCHES)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        flask.abort(
            400, f"Expected k from 1 to {most}. Received: k={text[:20]}."
        )
    return int(text)


def _json(value: dict[str, Any], code: int) -> flask.Response:
    return flask.Response(
        json.dumps(value), http.HTTPStatus(code), mimetype="application/json"
    )


def _is_this_host(asked: str, host: str) -> bool:
    """Whether a Host header names this server as no other site could.

    A name can be made to lead anywhere by who owns it; an address cannot.
    """
    name = _name_of(asked)
    if name in ("localhost", host.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name_of(host: str) -> str:
    """A host without its port, in lower case; empty if it is none."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _host_of(origin: str) -> str:
    return origin.partition("://")[2]
