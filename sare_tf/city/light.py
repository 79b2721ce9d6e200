"""Light and air: sun, shadows, street lamps, fog."""

import numpy as np

from sare_tf.city import pixels
from sare_tf.city.camera import View
from sare_tf.city.moment import Moment

# Weather -> share of the light that the air takes, per metre.
_THICKNESS = {"fog": 0.035, "rain": 0.008, "snow": 0.01}
_CLEAR_AIR = 0.001


def light(
    colours: np.ndarray,
    glowing: np.ndarray,
    moment: Moment,
    view: View,
    rng: np.random.Generator,
) -> np.ndarray:
    """Multiplies by the light of the moment, and mixes in the air.

    Args:
        colours: float32 [h, w, 3], see `surfaces.colour_surfaces`.
        glowing: bool [h, w], whether a ray meets a lit pane.
        moment: hour and weather.
        view: where the rays go.
        rng: source of shadows and lamps.

    Returns:
        [h, w, 3], which may exceed 1.
    """
    if moment.night:
        falling = _lamps(glowing, view, rng)
    else:
        falling = _daylight(moment, view, rng)
    # Soft differences over the picture: clouds, dirt, a thumb's shade.
    soft = pixels.smooth_noise(rng, view.height, view.width, cells=3)
    lit = colours * falling * (0.8 + 0.4 * soft)[..., None]
    thickness = _THICKNESS.get(moment.weather, _CLEAR_AIR)
    air = np.float32((0.78, 0.8, 0.82)) * (0.15 if moment.night else 1.0)
    through = np.exp(-thickness * view.length_m)[..., None].astype(np.float32)
    return through * lit + (1 - through) * air


def _lamps(
    glowing: np.ndarray, view: View, rng: np.random.Generator
) -> np.ndarray:
    """Light of street lamps, [h, w, 3]."""
    lamp = 0.55 + 0.45 * np.cos((view.x_m + rng.uniform(0, 9)) * 0.7)
    fall = np.clip(1.25 - np.maximum(view.y_m, 0) / 9, 0.35, 1.2)
    falling = (0.16 + 0.2 * lamp * fall)[..., None]
    falling = falling * np.float32((1.15, 0.98, 0.74))
    falling[~(view.ground | view.facade)] = 0.12
    falling[glowing] = (3.6, 2.7, 1.5)  # on dark panes
    return falling


def _daylight(
    moment: Moment, view: View, rng: np.random.Generator
) -> np.ndarray:
    """Light of the sun or the clouds, [h, w, 3]."""
    warm = rng.uniform(0, 1)
    sun = np.float32((1.0 + 0.12 * warm, 1.0, 1.0 - 0.16 * warm))
    falling = np.ones((view.height, view.width, 1), np.float32) * sun
    if moment.weather != "clear":
        return falling * np.float32((0.9, 0.92, 0.95))
    # The shadow of the houses across the street, with their roofs as steps.
    edge_m = rng.uniform(-2, 9) + rng.uniform(-0.5, 0.5) * view.x_m
    steps = np.sign(np.sin(view.x_m * 0.35 + rng.uniform(0, 6)))
    is_ground_dark = rng.random() < 0.5
    shade = (view.y_m < edge_m + 1.2 * steps) | (view.ground & is_ground_dark)
    shade &= view.facade | view.ground
    dark = np.float32((0.64, 0.67, 0.75)) * rng.uniform(0.85, 1.1)
    return np.where(shade[..., None], dark * falling, falling * 1.08)
