"""Sprites: trees, street furniture, people and vehicles.

A sprite is (image, width in metres, height in metres); the image is RGBA from 0
to 255, transparent around the object. Its foot is the bottom of the image.
"""

import numpy as np
from PIL import Image, ImageDraw

from sare_tf.city.moment import Moment

Sprite = tuple[Image.Image, float, float]

_GLASS = (52, 64, 74, 255)
_TYRE = (22, 22, 24, 255)
_CAR_COLOURS = [
    (190, 190, 195), (40, 40, 45), (120, 20, 25), (30, 60, 120),
    (230, 230, 230), (90, 95, 100), (150, 120, 60), (40, 90, 60),
]  # fmt: skip


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image)


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(c) for c in colour)


def _tree(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(96, 144)
    crown = rng.uniform(0.3, 0.42)
    base = np.array([70, 110, 50]) * rng.uniform(0.75, 1.25)
    height_m = rng.uniform(5.5, 8.5)
    bark = (82, 66, 54, 255)
    draw.polygon([(44, 144), (52, 144), (50, 60), (46, 60)], fill=bark)
    spots = rng.normal(0, 1, (46, 3))
    if moment.month in (12, 1, 2):
        for dx, dy, lean in spots[:18]:
            end = (48 + 96 * crown * dx * 0.45, 50 - 34 * abs(dy))
            draw.line([(48, 78 + 8 * lean), end], fill=bark, width=2)
    else:
        if moment.month in (9, 10, 11):
            base = np.array([168, 108, 44]) * rng.uniform(0.8, 1.15)
        elif moment.month in (3, 4):
            base = base * 0.7 + np.array([50, 55, 20])
        for dx, dy, tone in spots:
            x = 48 + 96 * crown * np.clip(dx, -1.4, 1.4) * 0.62
            y = 48 + 30 * np.clip(dy, -1.4, 1.3)
            radius = 8 + 4 * rng.random()
            colour = np.clip(base * (1 + 0.16 * tone), 0, 255).astype(int)
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=(*colour.tolist(), 245))
    return image, height_m * 0.66, height_m


def _lamp(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(24, 120)
    tone = int(rng.integers(35, 110))
    draw.rectangle((10, 10, 13, 120), fill=(tone, tone, tone + 5, 255))
    draw.rectangle((8, 104, 15, 120), fill=(tone, tone, tone, 255))
    if rng.random() < 0.5:
        draw.ellipse((5, 0, 19, 14), fill=(235, 230, 210, 255))
    else:
        draw.rectangle((0, 6, 18, 11), fill=(tone, tone, tone, 255))
    return image, 1.1, float(rng.uniform(4.5, 6.5))


def _sign(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(40, 100)
    draw.rectangle((18, 20, 21, 100), fill=(120, 120, 125, 255))
    colour = _rgb(rng.choice([200, 40, 60, 220], 3))
    if rng.random() < 0.5:
        draw.ellipse((4, 0, 36, 32), fill=(*colour, 255))
        draw.ellipse((11, 7, 29, 25), fill=(240, 240, 240, 255))
    else:
        draw.polygon([(20, 0), (38, 32), (2, 32)], fill=(*colour, 255))
        draw.polygon([(20, 9), (30, 27), (10, 27)], fill=(240, 240, 240, 255))
    return image, 1.0, 2.6


def _bench(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(90, 45)
    wood = (128, 88, 52, 255) if rng.random() < 0.6 else (70, 90, 70, 255)
    for y in (2, 10, 22):
        draw.rectangle((2, y, 88, y + 5), fill=wood)
    for x in (10, 78):
        draw.rectangle((x, 2, x + 3, 45), fill=(50, 50, 50, 255))
    return image, 1.9, 0.9


def _shelter(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(120, 84)
    frame = (60, 70, 80, 255)
    draw.rectangle((4, 8, 115, 84), fill=(170, 190, 205, 90))
    draw.rectangle((0, 0, 120, 9), fill=frame)
    for x in (4, 58, 112):
        draw.rectangle((x, 8, x + 3, 84), fill=frame)
    advert = _rgb(rng.integers(40, 230, 3))
    draw.rectangle((10, 20, 38, 76), fill=(*advert, 255))
    return image, 3.8, 2.5


def _bin(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(30, 45)
    colour = _rgb(rng.integers(30, 140, 3))
    draw.rectangle((3, 8, 26, 45), fill=(*colour, 255))
    draw.ellipse((2, 0, 27, 14), fill=(60, 60, 60, 255))
    return image, 0.6, 1.0


def _bollards(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(160, 36)
    for x in range(4, 160, 30):
        draw.rectangle((x, 4, x + 5, 36), fill=(60, 62, 66, 255))
        draw.rectangle((x, 8, x + 5, 11), fill=(210, 210, 205, 255))
    return image, 5.2, 0.95


def _person(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(30, 90)
    coat = _rgb(rng.integers(25, 200, 3))
    legs = _rgb(rng.integers(20, 100, 3))
    stride = int(rng.integers(0, 6))
    draw.polygon(
        [(10, 50), (15, 50), (12 - stride, 90), (8 - stride, 90)],
        fill=(*legs, 255),
    )
    draw.polygon(
        [(15, 50), (20, 50), (22 + stride, 90), (18 + stride, 90)],
        fill=(*legs, 255),
    )
    draw.rounded_rectangle((6, 16, 24, 56), 6, fill=(*coat, 255))
    draw.ellipse((10, 0, 20, 15), fill=(190, 150, 125, 255))
    return image, 0.62, 1.75


def _car(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(140, 52)
    colour = _CAR_COLOURS[int(rng.integers(len(_CAR_COLOURS)))]
    draw.polygon([(22, 22), (44, 2), (98, 2), (120, 22)], fill=(*colour, 255))
    draw.polygon([(30, 21), (47, 6), (68, 6), (68, 21)], fill=_GLASS)
    draw.polygon([(73, 21), (73, 6), (95, 6), (111, 21)], fill=_GLASS)
    draw.rounded_rectangle((2, 19, 138, 42), 7, fill=(*colour, 255))
    for x in (30, 110):
        draw.ellipse((x - 11, 30, x + 11, 52), fill=_TYRE)
        draw.ellipse((x - 5, 36, x + 5, 46), fill=(150, 150, 155, 255))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, 4.3, 1.5


def _van(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(150, 72)
    colour = _CAR_COLOURS[int(rng.integers(len(_CAR_COLOURS)))]
    draw.rounded_rectangle((2, 2, 148, 60), 8, fill=(*colour, 255))
    draw.polygon([(116, 28), (116, 8), (136, 8), (146, 28)], fill=_GLASS)
    stripe = _rgb(rng.integers(20, 230, 3))
    draw.rectangle((12, 24, 92, 34), fill=(*stripe, 255))
    for x in (32, 118):
        draw.ellipse((x - 12, 48, x + 12, 72), fill=_TYRE)
    return image, 5.2, 2.3


def _bus(rng: np.random.Generator, moment: Moment) -> Sprite:
    image, draw = _canvas(220, 64)
    colour = _rgb(rng.integers(40, 220, 3))
    draw.rounded_rectangle((1, 1, 219, 56), 6, fill=(*colour, 255))
    for x in range(8, 205, 26):
        draw.rectangle((x, 9, x + 21, 29), fill=_GLASS)
    for x in (42, 176):
        draw.ellipse((x - 11, 42, x + 11, 64), fill=_TYRE)
    return image, 11.0, 3.0


# Name -> sprite of a random look, in the season of the moment.
SPRITES = {
    "tree": _tree, "lamp": _lamp, "sign": _sign, "bench": _bench,
    "shelter": _shelter, "bin": _bin, "bollards": _bollards,
    "person": _person, "car": _car, "van": _van, "bus": _bus,
}  # fmt: skip
