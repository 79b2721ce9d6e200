"""The routes by which another process searches the index of this one.

`search.part_protocol` says which they are. Searches wait as photographs do, and
are answered one after the other.
"""

import io
import json

import flask
import numpy as np

from sare_tf.pages.options import ServeOptions
from sare_tf.search import part_protocol
from sare_tf.search.gallery import Gallery
from sare_tf.search.opened_index import Index
from sare_tf.search.part_protocol import Neighbours, Question
from sare_tf.serving.batching import Batcher

# Of all these routes.
PREFIX = "/part"


class PartRoutes:
    """Answers what the process asks that searches this index as a part.

    Args:
        index: the index.
        gallery: has its images.
        limits: of how much may wait, and for how long.
    """

    def __init__(self, index: Index, gallery: Gallery, limits: ServeOptions):
        self._index = index
        self._digest = part_protocol.digest_of(index.all_metadata)
        self._gallery = gallery
        self._limits = limits
        self._searches = Batcher(
            lambda key, questions: [self._found(one) for one in questions],
            most=1,
            waiting=limits.serve_waiting,
        )

    def add_to(self, app: flask.Flask) -> None:
        """Adds the routes to an application."""
        for path, view, method in (
            (PREFIX, self.show, "GET"),
            (f"{PREFIX}/manifest", self.show_manifest, "GET"),
            (f"{PREFIX}/image", self.show_image, "GET"),
            (f"{PREFIX}/search", self.search, "POST"),
        ):
            app.add_url_rule(path, path, view, methods=[method])

    def show(self) -> flask.Response:
        """GET /part: what the index holds."""
        return _json(part_protocol.describe(self._index))

    def show_manifest(self) -> flask.Response:
        """GET /part/manifest: rows of its manifest, parquet."""
        self._check(flask.request.args.get("index", ""))
        first = flask.request.args.get("first", "")
        if not (first.isascii() and first.isdigit() and len(first) < 16):
            flask.abort(400, "Expected first, the number of a row.")
        stop = int(first) + part_protocol.MANIFEST_ROWS
        written = io.BytesIO()
        rows = self._index.manifest.iloc[int(first) : stop]
        rows.to_parquet(written, index=False)
        return flask.Response(
            written.getvalue(), mimetype="application/vnd.apache.parquet"
        )

    def show_image(self) -> flask.Response:
        """GET /part/image: an image as the records hold it."""
        self._check(flask.request.args.get("index", ""))
        name = flask.request.args.get("image_id", "")
        (encoded,) = self._gallery.read([name])
        if encoded is None:
            flask.abort(404, "The records have no such image.")
        return flask.Response(encoded, mimetype="application/octet-stream")

    def search(self) -> flask.Response:
        """POST /part/search: the neighbours of descriptors."""
        self._searches.check_room()
        count, dimension = self._index.descriptors.shape
        try:
            question = Question.from_json(
                flask.request.get_data(cache=False),
                count=count,
                dimension=dimension,
            )
        except ValueError as error:
            flask.abort(400, f"Expected a search. Received: {error}.")
        self._check(question.index)
        try:
            found = self._searches(
                question, key=None, within_s=self._limits.serve_within_s
            )
        except ValueError as error:
            flask.abort(400, str(error))
        return _json(found.as_json())

    def _check(self, digest: str) -> None:
        """Refuses a request that means another index."""
        if digest != self._digest:
            flask.abort(
                409,
                f"Expected a request for the index {self._digest[:12]}, "
                f"which is served here. Received: one for {digest[:12]!r}.",
            )

    def _found(self, question: Question) -> Neighbours:
        rows = np.zeros((0, question.k), np.int64)
        distances = rows.astype(np.float32)
        if len(question.descriptors):
            rows, distances = self._index.search(
                question.descriptors, question.k, where=question.where
            )
        return Neighbours(
            rows=rows,
            squared_distances=distances,
            recall=self._index.recall_at(question.k, where=question.where),
        )


def _json(value: object) -> flask.Response:
    return flask.Response(json.dumps(value), mimetype="application/json")
