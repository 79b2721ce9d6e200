"""A picture of a place: surfaces, objects, light, and the camera."""

import numpy as np
from PIL import Image

from sare_tf.city import pixels
from sare_tf.city.camera import View
from sare_tf.city.light import light
from sare_tf.city.moment import Moment
from sare_tf.city.photograph import photograph
from sare_tf.city.place import Place
from sare_tf.city.street_objects import draw_objects
from sare_tf.city.surfaces import colour_surfaces


def render(
    place: Place,
    moment: Moment,
    rng: np.random.Generator,
    *,
    width: int,
    height: int,
) -> bytes:
    """Takes one picture.

    Args:
        place: the place in the picture.
        moment: when and from where the picture is taken.
        rng: source of everything that belongs neither to the place nor to the
            moment.
        width: columns of the picture.
        height: rows of the picture.

    Returns:
        A JPEG.
    """
    view = View(moment, distance_m=place.distance_m, width=width, height=height)
    colours, glowing = colour_surfaces(place, moment, view, rng)
    image = Image.fromarray(pixels.to_bytes(colours))
    draw_objects(image, place, moment, view, rng)
    lit = light(pixels.to_floats(image), glowing, moment, view, rng)
    return photograph(lit, moment, rng)
