"""The page that locates a photograph dropped on it: `locate --serve`.

    GET /               the page, with /locate.css and three scripts
    GET /image?id=...   an image of the database, or an example, large
    POST /locate        a photograph as the body -> its answer, JSON; `?k=`,
                        and what is known of it, see `request_prior`

A photograph is sent as it is, without a form, so that there is no file name to
trust; the server stores nothing of it. A body that is no JPEG, PNG or HEIC, or
too large, is refused by its first bytes before it is decoded. Photographs are
answered one at a time. With the answer to a HEIC comes a JPEG of it, since few
browsers can show the file. Pages of other servers may not use this one:
requests must name this host (against DNS rebinding) and come from its own page.
The page loads nothing from other servers, unless tiles for its map are named
here and asked for there.
"""

import functools
import http
import ipaddress
import json
import socket
import threading
import urllib.parse
from typing import Any

from absl import logging

from sare_tf.dataset import heif, image_refusal, manifest
from sare_tf.pages import html, locate_map, request_prior
from sare_tf.pages.map_tiles import MapTiles
from sare_tf.search.locator import Gallery, Locator
from sare_tf.search.prior import Prior
from sare_tf.serving import model_card

try:
    import flask
    import waitress
    from werkzeug import exceptions
except ImportError as missing:
    raise ImportError(
        "Expected Flask and waitress for --serve. Received: "
        f'{missing}. Run pip install "sare_tf[web]".'
    ) from missing

# The limits are ours.
_MOST_MATCHES = 50
# Connections at a time, each of which may hold a photograph, and seconds that
# a connection may be silent.
_CONNECTIONS, _SILENCE_S = 32, 30
_THREADS = 4
_KEPT_THUMBNAILS = 1024
# Ours: queries of the records that the page offers to try.
_EXAMPLES = 3
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
        upload_bytes: largest size of a photograph.
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
        upload_bytes: int = 20 << 20,
        host: str = "127.0.0.1",
        tiles: MapTiles | None = None,
    ):
        self._locator = locator
        self._gallery = gallery
        self._k = min(k, len(locator.index.manifest), _MOST_MATCHES)
        self._upload_bytes = upload_bytes
        self._host = host
        self._tiles = tiles
        self._map = locate_map.DatabaseMap(locator.index.manifest)
        self._examples = gallery.queries(_EXAMPLES)
        self._image_ids = {*locator.index.manifest["image_id"], *self._examples}
        self._templates = html.environment()
        self._thumbnail = functools.lru_cache(_KEPT_THUMBNAILS)(
            self._make_thumbnail
        )
        # One model: answers are made one after the other, in bounded memory.
        self._busy = threading.Lock()
        self.app = flask.Flask(__name__, static_folder=None)
        self.app.config["MAX_CONTENT_LENGTH"] = upload_bytes
        self.app.before_request(self.check_origin)
        self.app.after_request(self.add_headers)
        self.app.register_error_handler(
            exceptions.HTTPException, self.show_error
        )
        self.app.register_error_handler(Exception, self.survive)
        for path, view in (
            ("/", self.show_page),
            ("/locate.css", self.show_style),
            ("/locate.js", self.show_script),
            ("/map.js", self.show_script),
            ("/tiles.js", self.show_script),
            ("/image", self.show_image),
        ):
            self.app.add_url_rule(path, view_func=view)
        self.app.add_url_rule(
            "/locate", view_func=self.answer_photograph, methods=["POST"]
        )

    def serve(self, port: int) -> None:
        """Serves the page until it is interrupted.

        Args:
            port: the port to listen at; 0: any free port.

        Raises:
            OSError: the address cannot be listened at.
        """
        with _listen(self._host, port) as listener:
            port = listener.getsockname()[1]
            server = waitress.create_server(
                self.app,
                sockets=[listener],
                threads=_THREADS,
                connection_limit=_CONNECTIONS,
                channel_timeout=_SILENCE_S,
                # The page answers a little too much, waitress anything more.
                max_request_body_size=2 * self._upload_bytes,
                ident=None,
            )
            shown = f"[{self._host}]" if ":" in self._host else self._host
            logging.info(
                "Open http://%s:%d in a browser. Ctrl-C ends it.", shown, port
            )
            try:
                server.run()
            finally:
                server.close()

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
        """GET /locate.js, /map.js and /tiles.js: its scripts."""
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
        k = self._wanted_matches()
        prior = self._known_before()
        sent = self._sent_photograph()
        with self._busy:
            encoded, preview = _converted(sent)
            (answer,) = self._locator([encoded], k=k, prior=prior)
        if answer.error:
            flask.abort(422, f"This photograph cannot be used: {answer.error}.")
        result = answer.as_json()
        if preview:
            result["preview"] = preview
        for match in result["matches"]:
            match["thumbnail"] = self._thumbnail(match["image_id"])
        drawn = self._map.around(answer)
        result["map"] = drawn and drawn.svg
        return _json(result, 200)

    def check_origin(self) -> None:
        """Refuses requests that other servers' pages may have sent."""
        request = flask.request
        if not _is_this_host(request.host, self._host):
            flask.abort(403, "Open this page by its address or as localhost.")
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "none")
        if (request.method == "POST" or request.path == "/image") and (
            site not in ("same-origin", "none")
            or (origin and origin.partition("://")[2] != request.host)
        ):
            flask.abort(
                403, "Only this server's own page may send photographs."
            )

    def add_headers(self, response: flask.Response) -> flask.Response:
        """Adds the security headers."""
        response.headers.update(_HEADERS)
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
        if flask.request.path == "/locate":
            return _json({"error": message}, error.code)
        page = self._templates.get_template("locate_error.html")
        return page.render(title=error.name, message=message), error.code

    def survive(self, error: Exception) -> Any:
        """Answers after a failure of ours, which only the log describes."""
        logging.exception("A request failed.")
        if isinstance(error, (ConnectionError, TimeoutError)):
            return self.show_error(
                exceptions.ServiceUnavailable(
                    "The model's server does not answer; the log says why. "
                    "Try again later."
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

    def _sent_photograph(self) -> bytes:
        """The body of the request, if it begins as a photograph does."""
        if flask.request.mimetype == "multipart/form-data":
            flask.abort(
                415,
                "Send the photograph itself, without a form: curl "
                "--data-binary @PHOTO.jpg.",
            )
        encoded = flask.request.get_data(cache=False)
        if heif.is_heif(encoded[: heif.FIRST_BYTES]):
            return encoded
        problem = image_refusal.header_problem(encoded)
        if problem:
            flask.abort(
                415,
                "Expected a JPEG, PNG or HEIC photograph. Received: "
                f"{problem}.",
            )
        return encoded

    def _make_thumbnail(self, image_id: str) -> str | None:
        (encoded,) = self._gallery.read([image_id])
        if encoded is None:
            return None
        return html.thumbnail(html.Picture(encoded=encoded, name=image_id))


def _converted(encoded: bytes) -> tuple[bytes, str]:
    """Returns a photograph as JPEG or PNG; of a HEIC also a data URL."""
    try:
        converted = heif.as_jpeg(encoded)
    except heif.MissingDecoder as error:
        flask.abort(
            415, f"Expected a JPEG or PNG photograph. Received: {error}."
        )
    except ValueError as error:
        flask.abort(422, f"This photograph cannot be used: {error}.")
    if converted is encoded:
        return encoded, ""
    shown = html.enlarged(html.Picture(encoded=converted, name="photograph"))
    return converted, html.data_url("image/jpeg", shown)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            "Expected an address of this machine with a free port. Received: "
            f"--host={host} --port={port} ({error}). Choose another --port."
        ) from error
    address = listener.getsockname()[0]
    if not ipaddress.ip_address(address).is_loopback:
        logging.warning(
            "Everyone who reaches %s can see the database's images and send "
            "photographs, without a password and without encryption. With "
            "--host=127.0.0.1, only this machine can.",
            host,
        )
    return listener


def _json(value: dict[str, Any], code: int) -> flask.Response:
    return flask.Response(
        json.dumps(value), http.HTTPStatus(code), mimetype="application/json"
    )


def _is_this_host(named: str, host: str) -> bool:
    """Whether a Host header names this server as no other site could.

    A name can be made to lead anywhere by its owner; an address cannot.
    """
    try:
        name = urllib.parse.urlsplit(f"//{named}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", host.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
