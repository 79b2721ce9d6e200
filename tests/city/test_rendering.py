"""Pictures of places."""

import io

import numpy as np
from PIL import Image

from sare_tf.city.moment import Moment
from sare_tf.city.place import paint_place
from sare_tf.city.rendering import render


def test_pictures_of_a_place_differ_less_than_places():
    """In the middle of the day, seen from one spot, a place is itself."""

    def picture(place, seed):
        rng = np.random.default_rng(seed)
        moment = Moment(
            x_m=0.0,
            back_m=0.0,
            yaw_deg=0.0,
            pitch_deg=7.0,
            zoom=1.0,
            month=6,
            weather="overcast",
            night=False,
        )
        encoded = render(
            paint_place((9, place)),
            moment,
            rng,
            width=80,
            height=60,
        )
        grey = np.asarray(Image.open(io.BytesIO(encoded)).convert("L"), float)
        grey -= grey.mean()
        return grey / np.linalg.norm(grey)

    first = np.stack([picture(place, 0).ravel() for place in range(6)])
    second = np.stack([picture(place, 1).ravel() for place in range(6)])
    assert (np.argmax(first @ second.T, axis=1) == np.arange(6)).all()
