"""The photograph of a request, refused by its first bytes or as one piece."""

import flask

from sare_tf.dataset import heif, image_refusal
from sare_tf.pages import html


def read(request: flask.Request) -> bytes:
    """Returns the body of a request, if it begins as a photograph does.

    Raises:
        HTTPException: 415, it is something else; 413, it is too large.
    """
    if request.mimetype == "multipart/form-data":
        flask.abort(
            415,
            "Send the photograph itself, without a form: curl --data-binary "
            "@PHOTO.jpg.",
        )
    encoded = request.get_data(cache=False)
    if heif.is_heif(encoded[: heif.FIRST_BYTES]):
        return encoded
    problem = image_refusal.header_problem(encoded)
    if problem:
        flask.abort(
            415,
            f"Expected a JPEG, PNG or HEIC photograph. Received: {problem}.",
        )
    return encoded


def converted(encoded: bytes) -> tuple[bytes, str]:
    """Returns a photograph as JPEG or PNG; of a HEIC also a data URL.

    Raises:
        HTTPException: 415 or 422, a HEIC that cannot be converted.
    """
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
