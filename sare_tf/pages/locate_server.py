"""The page that locates a photograph dropped on it: `locate --serve`.

    GET /               the page, with /locate.css and its scripts
    GET /image?id=...   an image of the database, or an example, large
    POST /locate        a photograph as the body -> its answer, JSON; `?k=`,
                        and what is known of it, see `request_prior`
    GET /health         whether photographs are answered, JSON; 503 at the end
    GET /metrics        counts and times, as Prometheus reads them
    ... /part           for a process that searches this index as a part of its
                        own, see `part_routes`

A photograph is sent as it is, without a form, so that there is no file name to
trust; the server stores nothing of it. A body that is no JPEG, PNG or HEIC, or
too large, is refused by its first bytes before it is decoded. Photographs of
several clients are answered together. If too many wait, or one waits for too
long, the answer is 503 with Retry-After. With the answer to a HEIC comes a JPEG
of it, since few browsers can show the file. Pages of other servers may not use
this one: requests must name this host (against DNS rebinding) and come from its
own page. The page loads nothing from other servers, unless tiles for its map
are named here and asked for there.
"""

import functools
import http
import json
import threading
import time
from typing import Any

from absl import logging

from sare_tf.dataset import manifest
from sare_tf.pages import html, locate_map, request_prior
from sare_tf.pages.map_tiles import MapTiles
from sare_tf.pages.options import ServeOptions
from sare_tf.search import segment_searches
from sare_tf.search.answers import Answer
from sare_tf.search.gallery import Gallery
from sare_tf.search.locator import Locator
from sare_tf.search.part_protocol import PartFailed
from sare_tf.search.prior import Prior
from sare_tf.serving import model_card
from sare_tf.serving.batching import Batcher, Overloaded

try:
    import flask
    from werkzeug import exceptions

    from sare_tf.pages import (
        part_routes,
        request_photograph,
        server_metrics,
        web_server,
    )
except ImportError as missing:
    raise ImportError(
        "Expected Flask, waitress and prometheus_client for --serve. "
        f'Received: {missing}. Run pip install "sare_tf[web]".'
    ) from missing

# The limits are ours.
_MOST_MATCHES = 50
_KEPT_THUMBNAILS = 1024
# Ours: queries of the records that the page offers to try.
_EXAMPLES = 3
# Ours: when another server may have taken the place of one that ends.
_RETRY_AT_THE_END_S = 10
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
    "data: blob:{tiles}; connect-src 'self'; base-uri 'none'; form-action "
    "'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY.format(tiles=""),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LocateServer:
    """The page and its answers, as a WSGI application.

    Args:
        locator: answers photographs.
        gallery: has the images of the matches.
        k: matches of an answer, unless the request names another `?k=`; all
            images if the index has fewer.
        limits: what it holds at a time.
        host: address or name to listen at. Requests may name it, beside
            localhost and any numeric address.
        tiles: a map that the page offers to draw below positions; None: none.

    Attributes:
        app: the WSGI application.
    """

    def __init__(
        self,
        locator: Locator,
        gallery: Gallery,
        *,
        k: int = 5,
        limits: ServeOptions | None = None,
        host: str = "127.0.0.1",
        tiles: MapTiles | None = None,
    ):
        self._locator = locator
        self._gallery = gallery
        self._k = min(k, len(locator.index.manifest), _MOST_MATCHES)
        self._limits = limits or ServeOptions()
        self._upload_bytes = self._limits.upload_mebibytes << 20
        self._host = host
        self._tiles = tiles
        self._map = locate_map.DatabaseMap(locator.index.manifest)
        self._examples = gallery.queries(_EXAMPLES)
        self._image_ids = {*locator.index.manifest["image_id"], *self._examples}
        self._templates = html.environment()
        self._thumbnail = functools.lru_cache(_KEPT_THUMBNAILS)(
            self._make_thumbnail
        )
        # Pictures are made one after the other, in bounded memory.
        self._busy = threading.Lock()
        self._load = web_server.Load()
        self._batcher = Batcher(
            self._answers,
            most=self._limits.serve_batch,
            waiting=self._limits.serve_waiting,
            watch=lambda *batch: self._metrics.batch(*batch),
        )
        self._metrics = server_metrics.ServerMetrics(lambda: len(self._batcher))
        self.app = flask.Flask(__name__, static_folder=None)
        self.app.config["MAX_CONTENT_LENGTH"] = self._upload_bytes
        self.app.before_request(self.begin)
        self.app.before_request(self.check_origin)
        self.app.after_request(self.add_headers)
        self.app.register_error_handler(
            exceptions.HTTPException, self.show_error
        )
        self.app.register_error_handler(Overloaded, self.refuse)
        self.app.register_error_handler(Exception, self.survive)
        for path, view in (
            ("/", self.show_page),
            ("/locate.css", self.show_style),
            ("/locate.js", self.show_script),
            ("/map.js", self.show_script),
            ("/tiles.js", self.show_script),
            ("/lines.js", self.show_script),
            ("/near.js", self.show_script),
            ("/image", self.show_image),
            ("/health", self.show_health),
            ("/metrics", self.show_metrics),
        ):
            self.app.add_url_rule(path, view_func=view)
        self.app.add_url_rule(
            "/locate", view_func=self.answer_photograph, methods=["POST"]
        )
        parts = part_routes.PartRoutes(locator.index, gallery, self._limits)
        parts.add_to(self.app)

    def serve(self, port: int) -> None:
        """Serves the page until SIGTERM or Ctrl-C.

        Args:
            port: the port to listen at; 0: any free port.

        Raises:
            OSError: the address cannot be listened at.
        """
        web_server.serve(
            self.app,
            host=self._host,
            port=port,
            limits=self._limits,
            load=self._load,
        )

    def show_page(self) -> str:
        """GET /: the page."""
        index = self._locator.index
        return self._templates.get_template("locate.html").render(
            model=model_card.describe(self._locator.servable),
            database={
                "name": index.path,
                "images": len(index.manifest),
                "split": index.metadata["split"],
                "places": index.manifest["place_id"].nunique()
                if manifest.has_places(index.manifest)
                else None,
            },
            examples=[
                {"image_id": name, "thumbnail": self._thumbnail(name)}
                for name in self._examples
            ],
            known=request_prior.fields_of(index.prior_rows),
            k=self._k,
            upload_bytes=self._upload_bytes,
            tiles=self._tiles,
        )

    def show_style(self) -> flask.Response:
        """GET /locate.css: its style."""
        text = self._templates.get_template("locate.css").render()
        return flask.Response(text, mimetype="text/css")

    def show_script(self) -> flask.Response:
        """GET /locate.js, /map.js and others: its scripts."""
        name = flask.request.path.removeprefix("/")
        text = (html.TEMPLATES / name).read_text(encoding="utf-8")
        return flask.Response(text, mimetype="text/javascript")

    def show_image(self) -> flask.Response:
        """GET /image?id=...: an image of the database, as a large JPEG."""
        name = flask.request.args.get("id", "")
        if name not in self._image_ids:
            flask.abort(404, "The database has no such image.")
        (encoded,) = self._gallery.read([name])
        if encoded is None:
            flask.abort(404, "The records have no such image.")
        with self._busy:
            large = html.enlarged(html.Picture(encoded=encoded, name=name))
        return flask.Response(large, mimetype="image/jpeg")

    def answer_photograph(self) -> flask.Response:
        """POST /locate: the answer, with thumbnails and the SVG of a map."""
        self._batcher.check_room()  # Before the photograph is read.
        k = self._wanted_matches()
        prior = self._known_before()
        sent = request_photograph.read(flask.request)
        with self._busy:
            encoded, preview = request_photograph.converted(sent)
        answer = self._batcher(
            encoded, key=(k, prior), within_s=self._limits.serve_within_s
        )
        if answer.error:
            flask.abort(422, f"This photograph cannot be used: {answer.error}.")
        result = answer.as_json()
        if preview:
            result["preview"] = preview
        for match, written in zip(
            answer.matches, result["matches"], strict=True
        ):
            written["thumbnail"] = self._thumbnail(match.image_id)
            written["lines"] = [list(line) for line in match.lines]
        drawn = self._map.around(answer)
        result["map"] = drawn and drawn.svg
        return _json(result, 200)

    def show_health(self) -> flask.Response:
        """GET /health: whether photographs are answered."""
        if self._load.is_ending:
            return _json({"status": "ending"}, 503)
        index = self._locator.index
        failed = segment_searches.failing(index.parts)
        for error in failed.values():
            logging.warning("%s", error)
        if failed:
            return _json({"status": "parts fail", "parts": list(failed)}, 503)
        return _json({"status": "ok", "images": len(index.manifest)}, 200)

    def show_metrics(self) -> flask.Response:
        """GET /metrics: counts and times."""
        return flask.Response(
            self._metrics.text(), content_type=server_metrics.CONTENT_TYPE
        )

    def _answers(self, key: Any, photographs: list[bytes]) -> list[Answer]:
        """Answers a batch of photographs, for which the same is wanted."""
        k, prior = key
        return self._locator(photographs, k=k, prior=prior)

    def begin(self) -> None:
        """Notes when a request came; refuses photographs at the end."""
        flask.g.began = time.monotonic()
        if self._load.is_ending and flask.request.method == "POST":
            raise Overloaded(_RETRY_AT_THE_END_S)

    def check_origin(self) -> None:
        """Refuses requests that other servers' pages may have sent."""
        request = flask.request
        if not web_server.is_this_host(request.host, self._host):
            flask.abort(403, "Open this page by its address or as localhost.")
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "none")
        holds_images = request.path == "/image" or _is_for_parts(request)
        if (request.method == "POST" or holds_images) and (
            site not in ("same-origin", "none")
            or (origin and origin.partition("://")[2] != request.host)
        ):
            flask.abort(
                403, "Only this server's own page may send photographs."
            )

    def add_headers(self, response: flask.Response) -> flask.Response:
        """Adds the security headers, and counts the request."""
        response.headers.update(_HEADERS)
        if self._load.is_ending:
            response.headers["Connection"] = "close"
        rule = flask.request.url_rule
        self._metrics.request(
            rule.rule if rule else "other",
            response.status_code,
            time.monotonic() - flask.g.began,
        )
        if self._tiles is not None:
            # Servers of tiles refuse requests that name no page; they learn
            # the address of this server, not of a page of it.
            response.headers["Referrer-Policy"] = "strict-origin"
            response.headers["Content-Security-Policy"] = _POLICY.format(
                tiles=f" {self._tiles.server}"
            )
        return response

    def show_error(self, error: exceptions.HTTPException) -> Any:
        """Answers a refused request: JSON for photographs, else a page."""
        message = error.description
        if error.code == 413:
            message = (
                "The photograph is larger than "
                f"{self._upload_bytes / 2**20:g} MiB: make it smaller."
            )
        if flask.request.path == "/locate" or _is_for_parts(flask.request):
            return _json({"error": message}, error.code)
        page = self._templates.get_template("locate_error.html")
        return page.render(title=error.name, message=message), error.code

    def refuse(self, error: Overloaded) -> Any:
        """Answers that it is worth another try later."""
        message = (
            "Too many photographs wait for an answer. Try again in "
            f"{error.retry_after_s} s."
        )
        response = flask.make_response(
            self.show_error(exceptions.ServiceUnavailable(message))
        )
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response

    def survive(self, error: Exception) -> Any:
        """Answers after a failure of ours, which only the log describes."""
        logging.exception("A request failed.")
        if isinstance(error, (ConnectionError, TimeoutError)):
            needed = "model's server"
            if isinstance(error, PartFailed):
                needed = "server of a part of the index"
            return self.show_error(
                exceptions.ServiceUnavailable(
                    f"The {needed} does not answer; the log says why. Try "
                    "again later."
                )
            )
        return self.show_error(
            exceptions.InternalServerError(
                "This photograph could not be answered; the log says why."
            )
        )

    def _wanted_matches(self) -> int:
        """Matches that the request asks for."""
        text = flask.request.args.get("k", str(self._k))
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        if not (is_number and 1 <= int(text) <= _MOST_MATCHES):
            flask.abort(
                400,
                f"Expected k from 1 to {_MOST_MATCHES}. Received: "
                f"k={text[:20]}.",
            )
        return int(text)

    def _known_before(self) -> Prior | None:
        """What the request says is known of the photograph."""
        try:
            prior = request_prior.read(flask.request.args)
            if prior is not None:
                with self._busy:
                    self._locator.index.prior_rows.allowed(prior)
        except ValueError as error:
            flask.abort(400, str(error))
        return prior

    def _make_thumbnail(self, image_id: str) -> str | None:
        (encoded,) = self._gallery.read([image_id])
        if encoded is None:
            return None
        return html.thumbnail(html.Picture(encoded=encoded, name=image_id))


def _is_for_parts(request: flask.Request) -> bool:
    return request.path.startswith(part_routes.PREFIX)


def _json(value: dict[str, Any], code: int) -> flask.Response:
    return flask.Response(
        json.dumps(value), http.HTTPStatus(code), mimetype="application/json"
    )
