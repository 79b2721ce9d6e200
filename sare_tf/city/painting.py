"""Renders pictures of street places, with numpy and Pillow alone.

A place is one side of a street: a strip of facades, painted once as a texture
in the plane of the facades, with trees and street furniture in front. A
picture is what a camera across the street sees of it: rays through its pixels
meet the facades, the ground or the sky. The place is a function of its seed;
the time, the weather, the light, passers-by and the camera's own faults are
drawn anew for every picture.

Metres: x along the street, y up, z from the camera towards the facades; the
place is at x = 0. Colours are float32 from 0 to 1.
"""

import dataclasses
import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Texture of the facades.
PIXELS_PER_M = 14
STRIP_M = 64.0
STRIP_HEIGHT_M = 21.0
PAVEMENT_M = 3.2
# Rays per pixel and axis.
_SUPERSAMPLING = 2

# How much pictures of one place differ. Larger values are harder.
POSITION_M = 1.9  # standard deviation along the street
YAW_DEG = 6.5  # standard deviation of the heading
ZOOM = (0.88, 1.22)  # focal length, relative
LIGHT_STOPS = 0.35  # standard deviation of exposure
CAST = 0.08  # standard deviation of the gain of a channel
NIGHT = 0.05  # share of pictures after dusk
TRAFFIC = 0.6  # vehicles of a picture, on average

WEATHER = ("clear", "overcast", "rain", "fog", "snow")


@dataclasses.dataclass(frozen=True)
class Place:
    """A painted place.

    Attributes:
        facade: uint8 [h, w, 3], from the roofs down to the ground.
        kind: uint8 [h, w]: 0 sky, 1 wall, 2 window pane, 3 ledge and roof.
        pane: int16 [h, w], number of the window, to light it at night.
        distance_m: from the camera to the facades, on average.
        objects: (kind, x, z, seed) of trees and street furniture.
        ground: colours of pavement and road, float32 [2, 3].
        skyline: heights of what is behind, one per 6 m.
    """

    facade: np.ndarray
    kind: np.ndarray
    pane: np.ndarray
    distance_m: float
    objects: list
    ground: np.ndarray
    skyline: np.ndarray


@dataclasses.dataclass(frozen=True)
class Moment:
    """When and from where a picture is taken."""

    x_m: float
    back_m: float
    yaw_deg: float
    pitch_deg: float
    zoom: float
    month: int
    weather: str
    night: bool


def draw_moment(rng: np.random.Generator) -> Moment:
    """Draws a time, a weather and a view."""
    month = int(rng.integers(1, 13))
    weather = str(rng.choice(WEATHER, p=[0.4, 0.32, 0.14, 0.06, 0.08]))
    if weather == "snow" and 3 < month < 11:
        weather = "overcast"
    return Moment(
        x_m=float(np.clip(rng.normal(0, POSITION_M), -5, 5)),
        back_m=float(rng.uniform(-1.2, 1.2)),
        yaw_deg=float(np.clip(rng.normal(0, YAW_DEG), -24, 24)),
        pitch_deg=float(rng.normal(7, 1.5)),
        zoom=float(rng.uniform(*ZOOM)),
        month=month,
        weather=weather,
        night=bool(rng.random() < NIGHT),
    )


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
        place: what is seen.
        moment: when and from where.
        rng: for all that is not the place.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Returns:
        A JPEG.
    """
    view = _View(place, moment, width=width, height=height)
    colours, glowing = _surfaces(place, moment, view, rng)
    image = Image.fromarray(_to_bytes(colours))
    _draw_objects(image, place, moment, view, rng)
    lit = _light(_to_float(image), glowing, moment, view, rng)
    return _photograph(lit, moment, rng, size=(width, height))


# --- Camera -----------------------------------------------------------------


class _View:
    """Rays of a camera, and what they meet.

    Attributes:
        x, y: float32 [h, w], where a ray meets the plane of the facades.
        facade: bool [h, w], the ray meets the strip.
        ground_x, ground_z: float32 [h, w], where it meets the ground.
        ground: bool [h, w], it meets the ground before the facades.
        up: float32 [h, w], height of the ray per metre, for the sky.
    """

    def __init__(self, place, moment, *, width, height):
        self.width, self.height = (
            width * _SUPERSAMPLING,
            height * _SUPERSAMPLING,
        )
        self.focal = 0.68 * self.width * moment.zoom
        self.eye = 1.6
        self.camera_x = moment.x_m
        self.distance = place.distance_m + moment.back_m
        self.yaw = math.radians(moment.yaw_deg)
        self.pitch = math.radians(moment.pitch_deg)
        across = (np.arange(self.width) - self.width / 2 + 0.5) / self.focal
        down = (np.arange(self.height) - self.height / 2 + 0.5) / self.focal
        across = across.astype(np.float32)[None, :]
        down = down.astype(np.float32)[:, None]
        forward = math.cos(self.pitch) + math.sin(self.pitch) * down
        self.up = math.sin(self.pitch) - math.cos(self.pitch) * down
        self.up = np.broadcast_to(self.up, (self.height, self.width))
        side = across * math.cos(self.yaw) + forward * math.sin(self.yaw)
        depth = -across * math.sin(self.yaw) + forward * math.cos(self.yaw)
        reach = self.distance / np.maximum(depth, 1e-3)
        self.x = self.camera_x + reach * side
        self.y = self.eye + reach * self.up
        below = self.eye / np.maximum(-self.up, 1e-4)
        self.ground = (self.up < 0) & (below < reach)
        self.ground_x = self.camera_x + below * side
        self.ground_z = below * depth
        self.facade = (
            ~self.ground
            & (depth > 1e-3)
            & (np.abs(self.x) < STRIP_M / 2 - 0.1)
            & (self.y < STRIP_HEIGHT_M - 0.1)
        )
        self.reach = np.where(self.ground, below, np.minimum(reach, 120))

    def project(self, x, y, z):
        """Pixel of a point, and pixels per metre there; None behind."""
        side, depth = x - self.camera_x, z
        across = side * math.cos(self.yaw) - depth * math.sin(self.yaw)
        along = side * math.sin(self.yaw) + depth * math.cos(self.yaw)
        rise = y - self.eye
        forward = along * math.cos(self.pitch) + rise * math.sin(self.pitch)
        up = rise * math.cos(self.pitch) - along * math.sin(self.pitch)
        if forward < 1.0:
            return None
        scale = self.focal / forward
        return (
            self.width / 2 + across * scale,
            self.height / 2 - up * scale,
            scale,
        )


def _surfaces(place, moment, view, rng):
    """Colours of facades, ground and sky before light; panes lit at night."""
    row = ((STRIP_HEIGHT_M - view.y) * PIXELS_PER_M).astype(np.int32)
    column = ((view.x + STRIP_M / 2) * PIXELS_PER_M).astype(np.int32)
    rows, columns = place.kind.shape
    row = np.clip(row, 0, rows - 1)  # a ray along the edge of the pavement
    at = np.where(view.facade, row * columns + column, 0).reshape(-1)
    kind = place.kind.reshape(-1)[at]
    kind[~view.facade.reshape(-1)] = 0
    pane = place.pane.reshape(-1)[at]
    colours = place.facade.reshape(-1, 3)[at].astype(np.float32)
    colours *= 1 / 255
    behind = np.flatnonzero((kind == 0) & ~view.ground.reshape(-1))
    colours[behind] = _sky(place, moment, view, rng, behind)
    panes = np.flatnonzero(kind == 2)
    glowing = np.zeros(len(kind), bool)
    if moment.weather == "snow":
        ledges = kind == 3
        colours[ledges] = 0.35 * colours[ledges] + 0.6
    if moment.night:
        lit = rng.random(int(place.pane.max()) + 1) < 0.4
        glowing[panes[lit[pane[panes]]]] = True
    else:
        # Panes mirror the sky, each a little differently.
        sheen = rng.uniform(0.1, 0.5, int(place.pane.max()) + 1)
        amount = sheen[pane[panes]][:, None].astype(np.float32)
        sky = np.float32((0.62, 0.7, 0.8))
        colours[panes] = (1 - amount) * colours[panes] + amount * sky
    colours = colours.reshape(view.height, view.width, 3)
    _ground(colours, place, moment, view, rng)
    return colours, glowing.reshape(view.height, view.width)


def _sky(place, moment, view, rng, where):
    """Colours of the sky, and of what stands far behind, at pixels [P]."""
    high = {
        "clear": (0.36, 0.56, 0.86),
        "overcast": (0.72, 0.75, 0.79),
        "rain": (0.58, 0.61, 0.66),
        "fog": (0.8, 0.81, 0.82),
        "snow": (0.8, 0.82, 0.86),
    }[moment.weather]
    up = view.up.reshape(-1)[where]
    x, y = view.x.reshape(-1)[where], view.y.reshape(-1)[where]
    amount = np.clip(up * 1.6, 0, 1)[:, None]
    low = np.float32((0.84, 0.87, 0.9))
    colours = (1 - amount) * low + amount * np.float32(high)
    if moment.weather == "clear":
        clouds = _smooth_noise(rng, view.height, view.width, cells=5)
        clouds = clouds.reshape(-1)[where]
        cover = np.clip((clouds - rng.uniform(0.45, 0.75)) * 4, 0, 1)[:, None]
        colours = (1 - cover) * colours + cover * 0.95
    cell = ((x * 2.5) / 6 + len(place.skyline) / 2).astype(np.int32)
    cell = np.clip(cell, 0, len(place.skyline) - 1)
    houses = (y < place.skyline[cell]) & (up > -0.02)
    pale = np.float32((0.23, 0.23, 0.24))
    colours[houses] = 0.55 * colours[houses] + pale
    return colours


def _ground(colours, place, moment, view, rng):
    x, z = view.ground_x[view.ground], view.ground_z[view.ground]
    edge = view.distance - PAVEMENT_M
    pavement, road = place.ground
    part = np.empty((len(x), 3), np.float32)
    part[:] = road
    walk = z > edge
    part[walk] = pavement
    joint = walk & ((np.mod(x, 0.8) < 0.06) | (np.mod(z, 0.8) < 0.06))
    part[joint] *= 0.82
    kerb = (z > edge - 0.18) & ~walk
    part[kerb] = np.minimum(pavement * 1.15, 1)
    middle = np.abs(z - edge + 3.3) < 0.09
    part[middle & (np.mod(x, 5) < 2.4)] = 0.85
    part *= rng.normal(1, 0.035, len(x)).astype(np.float32)[:, None]
    if moment.weather == "rain":
        mirrored = np.clip(0.45 + 0.5 * np.sin(x * 1.7 + z), 0.15, 0.8)
        part = part * 0.55 + (0.22 * mirrored[:, None]).astype(np.float32)
    if moment.weather == "snow":
        amount = np.where(walk | (np.mod(z, 2.1) < 1.2), 0.85, 0.35)[:, None]
        part = (1 - amount) * part + amount * 0.92
    colours[view.ground] = part


def _light(colours, glowing, moment, view, rng):
    """Multiplies by the light of the moment, and mixes in the air."""
    if moment.night:
        lamp = 0.55 + 0.45 * np.cos((view.x + rng.uniform(0, 9)) * 0.7)
        fall = np.clip(1.25 - np.maximum(view.y, 0) / 9, 0.35, 1.2)
        light = (0.16 + 0.2 * lamp * fall)[..., None]
        light = light * np.float32((1.15, 0.98, 0.74))
        light[~(view.ground | view.facade)] = 0.12
        light[glowing] = (3.6, 2.7, 1.5)  # on dark panes
    else:
        warm = rng.uniform(0, 1)
        sun = np.float32((1.0 + 0.12 * warm, 1.0, 1.0 - 0.16 * warm))
        light = np.ones((view.height, view.width, 1), np.float32) * sun
        if moment.weather == "clear":
            # The shadow of the houses across, and of something beside.
            edge = rng.uniform(-2, 9) + rng.uniform(-0.5, 0.5) * view.x
            steps = np.sign(np.sin(view.x * 0.35 + rng.uniform(0, 6)))
            shade = (view.y < edge + 1.2 * steps) | view.ground & (
                rng.random() < 0.5
            )
            shade &= view.facade | view.ground
            dark = np.float32((0.64, 0.67, 0.75)) * rng.uniform(0.85, 1.1)
            light = np.where(shade[..., None], dark * light, light * 1.08)
        else:
            light = light * np.float32((0.9, 0.92, 0.95))
    # Soft differences over the picture: clouds, dirt, a thumb's shade.
    soft = _smooth_noise(rng, view.height, view.width, cells=3)
    lit = colours * light * (0.8 + 0.4 * soft)[..., None]
    thickness = {"fog": 0.035, "rain": 0.008, "snow": 0.01}.get(
        moment.weather, 0.001
    )
    air = np.float32((0.78, 0.8, 0.82)) * (0.15 if moment.night else 1.0)
    through = np.exp(-thickness * view.reach)[..., None].astype(np.float32)
    return through * lit + (1 - through) * air


def _photograph(lit, moment, rng, *, size):
    """The faults of a camera: exposure, colour, blur, noise, compression."""
    width, height = size
    small = lit.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING, 3)
    small = small.mean((1, 3))
    if moment.weather in ("rain", "snow"):
        small = _falling(small, moment, rng)
    if moment.night:
        small = small * rng.uniform(1.3, 2.0)  # the camera opens up
    gain = 2 ** rng.normal(0.25, LIGHT_STOPS) * rng.normal(1, CAST, 3)
    small = np.clip(small * np.clip(gain, 0.5, 2.2), 0, 1)
    small = small ** rng.uniform(0.8, 1.2)
    contrast = rng.uniform(0.75, 1.15)
    small = 0.5 + (small - 0.5) * contrast
    grain = rng.normal(0, rng.uniform(0.005, 0.03), (height, width, 1))
    picture = Image.fromarray(_to_bytes(small + grain))
    if rng.random() < 0.3:
        picture = picture.filter(
            ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9))
        )
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=int(rng.integers(45, 93)))
    return encoded.getvalue()


def _falling(picture, moment, rng):
    height, width, _ = picture.shape
    drops = np.zeros((height, width), np.float32)
    length = 6 if moment.weather == "rain" else 1
    count = 90 if moment.weather == "rain" else 160
    rows = rng.integers(0, height, count)
    columns = rng.integers(0, width, count)
    for step in range(length):
        drops[(rows + step) % height, columns] = 1
    amount = (0.25 if moment.weather == "rain" else 0.8) * drops[..., None]
    return picture * (1 - amount) + amount * 0.9


# --- Things in front of the facades -----------------------------------------

_CAR_COLOURS = [
    (190, 190, 195), (40, 40, 45), (120, 20, 25), (30, 60, 120),
    (230, 230, 230), (90, 95, 100), (150, 120, 60), (40, 90, 60),
]  # fmt: skip


def _draw_objects(image, place, moment, view, rng):
    edge = view.distance - PAVEMENT_M
    things = [
        (kind, x, view.distance - z, np.random.default_rng(seed))
        for kind, x, z, seed in place.objects
    ]
    for _ in range(rng.poisson(TRAFFIC)):
        kind = str(rng.choice(["car", "van", "bus"], p=[0.72, 0.22, 0.06]))
        # What is high drives on the far side, so that it hides less.
        lane = 1.1 if kind != "car" else rng.choice([1.1, 4.0], p=[0.7, 0.3])
        things.append((kind, rng.uniform(-16, 16), edge - lane, rng))
    for _ in range(rng.poisson(1.2)):
        depth = view.distance - rng.uniform(0.6, 2.8)
        things.append(("person", rng.uniform(-10, 10), depth, rng))
    for kind, x, z, own in sorted(things, key=lambda thing: -thing[2]):
        sprite, width_m, height_m = _SPRITES[kind](own, moment)
        foot = view.project(x, 0.0, z)
        if foot is None:
            continue
        u, v, scale = foot
        width, height = round(width_m * scale), round(height_m * scale)
        if not 2 <= width <= 4 * view.width or u + width < 0:
            continue
        if u - width > view.width or height < 2:
            continue
        if kind in ("car", "van", "bus"):
            shadow = Image.new("L", (width, max(2, height // 8)), 120)
            image.paste(
                (12, 12, 14), (round(u - width / 2), round(v) - 1), shadow
            )
        sprite = sprite.resize((width, height), Image.Resampling.BILINEAR)
        image.paste(sprite, (round(u - width / 2), round(v - height)), sprite)


def _canvas(width, height):
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image)


def _tree(rng, moment):
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


def _lamp(rng, moment):
    image, draw = _canvas(24, 120)
    tone = int(rng.integers(35, 110))
    draw.rectangle((10, 10, 13, 120), fill=(tone, tone, tone + 5, 255))
    draw.rectangle((8, 104, 15, 120), fill=(tone, tone, tone, 255))
    if rng.random() < 0.5:
        draw.ellipse((5, 0, 19, 14), fill=(235, 230, 210, 255))
    else:
        draw.rectangle((0, 6, 18, 11), fill=(tone, tone, tone, 255))
    return image, 1.1, float(rng.uniform(4.5, 6.5))


def _sign(rng, moment):
    image, draw = _canvas(40, 100)
    draw.rectangle((18, 20, 21, 100), fill=(120, 120, 125, 255))
    colour = tuple(int(c) for c in rng.choice([200, 40, 60, 220], 3))
    if rng.random() < 0.5:
        draw.ellipse((4, 0, 36, 32), fill=(*colour, 255))
        draw.ellipse((11, 7, 29, 25), fill=(240, 240, 240, 255))
    else:
        draw.polygon([(20, 0), (38, 32), (2, 32)], fill=(*colour, 255))
        draw.polygon([(20, 9), (30, 27), (10, 27)], fill=(240, 240, 240, 255))
    return image, 1.0, 2.6


def _bench(rng, moment):
    image, draw = _canvas(90, 45)
    wood = (128, 88, 52, 255) if rng.random() < 0.6 else (70, 90, 70, 255)
    for y in (2, 10, 22):
        draw.rectangle((2, y, 88, y + 5), fill=wood)
    for x in (10, 78):
        draw.rectangle((x, 2, x + 3, 45), fill=(50, 50, 50, 255))
    return image, 1.9, 0.9


def _shelter(rng, moment):
    image, draw = _canvas(120, 84)
    frame = (60, 70, 80, 255)
    draw.rectangle((4, 8, 115, 84), fill=(170, 190, 205, 90))
    draw.rectangle((0, 0, 120, 9), fill=frame)
    for x in (4, 58, 112):
        draw.rectangle((x, 8, x + 3, 84), fill=frame)
    advert = tuple(int(c) for c in rng.integers(40, 230, 3))
    draw.rectangle((10, 20, 38, 76), fill=(*advert, 255))
    return image, 3.8, 2.5


def _bin(rng, moment):
    image, draw = _canvas(30, 45)
    colour = tuple(int(c) for c in rng.integers(30, 140, 3))
    draw.rectangle((3, 8, 26, 45), fill=(*colour, 255))
    draw.ellipse((2, 0, 27, 14), fill=(60, 60, 60, 255))
    return image, 0.6, 1.0


def _bollards(rng, moment):
    image, draw = _canvas(160, 36)
    for x in range(4, 160, 30):
        draw.rectangle((x, 4, x + 5, 36), fill=(60, 62, 66, 255))
        draw.rectangle((x, 8, x + 5, 11), fill=(210, 210, 205, 255))
    return image, 5.2, 0.95


def _person(rng, moment):
    image, draw = _canvas(30, 90)
    coat = tuple(int(c) for c in rng.integers(25, 200, 3))
    legs = tuple(int(c) for c in rng.integers(20, 100, 3))
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


def _car(rng, moment):
    image, draw = _canvas(140, 52)
    colour = _CAR_COLOURS[int(rng.integers(len(_CAR_COLOURS)))]
    glass = (52, 64, 74, 255)
    draw.polygon([(22, 22), (44, 2), (98, 2), (120, 22)], fill=(*colour, 255))
    draw.polygon([(30, 21), (47, 6), (68, 6), (68, 21)], fill=glass)
    draw.polygon([(73, 21), (73, 6), (95, 6), (111, 21)], fill=glass)
    draw.rounded_rectangle((2, 19, 138, 42), 7, fill=(*colour, 255))
    for x in (30, 110):
        draw.ellipse((x - 11, 30, x + 11, 52), fill=(22, 22, 24, 255))
        draw.ellipse((x - 5, 36, x + 5, 46), fill=(150, 150, 155, 255))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image, 4.3, 1.5


def _van(rng, moment):
    image, draw = _canvas(150, 72)
    colour = _CAR_COLOURS[int(rng.integers(len(_CAR_COLOURS)))]
    draw.rounded_rectangle((2, 2, 148, 60), 8, fill=(*colour, 255))
    draw.polygon(
        [(116, 28), (116, 8), (136, 8), (146, 28)], fill=(52, 64, 74, 255)
    )
    stripe = tuple(int(c) for c in rng.integers(20, 230, 3))
    draw.rectangle((12, 24, 92, 34), fill=(*stripe, 255))
    for x in (32, 118):
        draw.ellipse((x - 12, 48, x + 12, 72), fill=(22, 22, 24, 255))
    return image, 5.2, 2.3


def _bus(rng, moment):
    image, draw = _canvas(220, 64)
    colour = tuple(int(c) for c in rng.integers(40, 220, 3))
    draw.rounded_rectangle((1, 1, 219, 56), 6, fill=(*colour, 255))
    for x in range(8, 205, 26):
        draw.rectangle((x, 9, x + 21, 29), fill=(52, 64, 74, 255))
    for x in (42, 176):
        draw.ellipse((x - 11, 42, x + 11, 64), fill=(22, 22, 24, 255))
    return image, 11.0, 3.0


_SPRITES = {
    "tree": _tree, "lamp": _lamp, "sign": _sign, "bench": _bench,
    "shelter": _shelter, "bin": _bin, "bollards": _bollards,
    "person": _person, "car": _car, "van": _van, "bus": _bus,
}  # fmt: skip


# --- Painting a place -------------------------------------------------------

_WALLS = {
    "brick": [(150, 74, 56), (128, 62, 50), (172, 104, 78), (110, 70, 62)],
    "plaster": [
        (222, 206, 176), (206, 182, 140), (196, 150, 128), (178, 194, 190),
        (226, 222, 212), (214, 172, 108), (160, 176, 150), (190, 160, 172),
    ],
    "stone": [(176, 168, 152), (146, 142, 134), (196, 184, 158)],
    "panel": [(120, 128, 136), (88, 96, 106), (158, 150, 138)],
}  # fmt: skip


def paint_place(seed: tuple[int, ...]) -> Place:
    """Paints a place; the same seed gives the same place."""
    rng = np.random.default_rng(seed)
    painter = _Painter(rng)
    x = -STRIP_M / 2 - rng.uniform(0, 6)
    while x < STRIP_M / 2:
        width = rng.uniform(5.5, 13.5)
        if rng.random() < 0.06:
            painter.gap(x, width * 0.5)
            width *= 0.5
        else:
            painter.building(x, width)
        x += width
    objects = []
    taken = np.array([-99.0])
    for _ in range(int(rng.integers(3, 8))):
        kind = str(
            rng.choice(
                ["tree", "lamp", "sign", "bench", "shelter", "bin", "bollards"],
                p=[0.34, 0.2, 0.14, 0.1, 0.06, 0.08, 0.08],
            )
        )
        at = rng.uniform(-20, 20)
        if np.abs(taken - at).min() < 3:
            continue
        taken = np.append(taken, at)
        depth = rng.uniform(1.6, 2.8)
        objects.append(
            (kind, float(at), float(depth), int(rng.integers(1 << 30)))
        )
    pavement = rng.uniform(0.45, 0.68) * rng.normal(1, 0.04, 3)
    road = rng.uniform(0.24, 0.38) * rng.normal(1, 0.02, 3)
    return Place(
        facade=np.asarray(painter.colours.convert("RGB")),
        kind=np.asarray(painter.kind),
        pane=painter.panes(),
        distance_m=float(rng.uniform(10.5, 13.5)),
        objects=objects,
        ground=np.stack([pavement, road]).astype(np.float32),
        skyline=rng.uniform(8, 26, 60).astype(np.float32),
    )


class _Painter:
    """Paints buildings into the strip; metres in, pixels out."""

    def __init__(self, rng):
        self._rng = rng
        size = (
            round(STRIP_M * PIXELS_PER_M),
            round(STRIP_HEIGHT_M * PIXELS_PER_M),
        )
        self.colours = Image.new("RGB", size)
        self.kind = Image.new("L", size, 0)
        self._pane_ids = Image.new("I", size, 0)
        self._draws = tuple(
            ImageDraw.Draw(image)
            for image in (self.colours, self.kind, self._pane_ids)
        )
        self._num_panes = 0

    def panes(self):
        return np.asarray(self._pane_ids).astype(np.int16)

    def gap(self, x, width):
        """A gateway or garden wall between houses."""
        tone = int(self._rng.integers(70, 150))
        self._box(x, 0, width, 2.4, (tone, tone - 8, tone - 16))
        self._box(x, 2.4, width, 0.15, (tone + 20,) * 3, kind=3)
        self._box(x + 0.3 * width, 0, 0.4 * width, 2.2, (60, 62, 58))

    def building(self, x, width):
        rng = self._rng
        material = str(rng.choice(list(_WALLS), p=[0.3, 0.4, 0.18, 0.12]))
        colours = _WALLS[material]
        base = np.array(colours[int(rng.integers(len(colours)))], float)
        base = np.clip(
            base * rng.normal(1, 0.07) * rng.normal(1, 0.03, 3), 20, 245
        )
        storeys = int(rng.integers(2, 6))
        ground_m = rng.uniform(3.2, 4.3)
        storey_m = rng.uniform(2.8, 3.5)
        top = ground_m + (storeys - 1) * storey_m
        trim = np.clip(
            base * rng.choice([0.62, 1.25]) + rng.normal(0, 8, 3), 15, 250
        )
        self._wall(x, width, top, base, material)
        shop = rng.random() < 0.5
        if shop:
            self._shop(x, width, ground_m, trim)
        else:
            self._house_front(x, width, ground_m, base, trim)
        self._windows(x, width, ground_m, storey_m, storeys, base, trim)
        self._box(x, ground_m - 0.15, width, 0.22, trim, kind=3)
        self._roof(x, width, top, trim)
        if rng.random() < 0.5:
            pipe = x + (0.15 if rng.random() < 0.5 else width - 0.3)
            self._box(pipe, 0, 0.14, top, trim * 0.7)
        if rng.random() < 0.14:
            self._ivy(x + rng.uniform(0, width * 0.6), rng.uniform(1.5, 3), top)
        if rng.random() < 0.22:
            self._hanging_sign(x + rng.uniform(0.5, width - 1), ground_m)

    def _box(self, x, y, width, height, colour, *, kind=1, pane=0):
        """A rectangle; y is its foot above the ground."""
        left = (x + STRIP_M / 2) * PIXELS_PER_M
        right = (x + width + STRIP_M / 2) * PIXELS_PER_M - 1
        low = (STRIP_HEIGHT_M - y) * PIXELS_PER_M - 1
        high = (STRIP_HEIGHT_M - y - height) * PIXELS_PER_M
        box = (round(left), round(high), max(round(left), round(right)),
               max(round(high), round(low)))  # fmt: skip
        values = (_rgb(colour), kind, pane)
        for draw, value in zip(self._draws, values, strict=True):
            draw.rectangle(box, fill=value)

    def _arch(self, x, y, width, height, colour, *, kind=1, pane=0):
        self._box(x, y, width, height - width / 2, colour, kind=kind, pane=pane)
        left = (x + STRIP_M / 2) * PIXELS_PER_M
        high = (STRIP_HEIGHT_M - y - height) * PIXELS_PER_M
        side = width * PIXELS_PER_M
        box = (
            round(left),
            round(high),
            round(left + side) - 1,
            round(high + side),
        )
        values = (_rgb(colour), kind, pane)
        for draw, value in zip(self._draws, values, strict=True):
            draw.pieslice(box, 180, 360, fill=value)

    def _wall(self, x, width, top, base, material):
        rng = self._rng
        self._box(x, 0, width, top, base)
        left = max(0, round((x + STRIP_M / 2) * PIXELS_PER_M))
        right = min(
            self.colours.width, round((x + width + STRIP_M / 2) * PIXELS_PER_M)
        )
        high = round((STRIP_HEIGHT_M - top) * PIXELS_PER_M)
        rows, columns = self.colours.height - high, right - left
        if columns < 2:
            return
        texture = rng.normal(1, 0.03, (rows, columns))
        stains = _smooth_noise(rng, rows, columns, cells=4)
        texture *= 0.9 + 0.2 * stains
        across, down = np.arange(columns), np.arange(rows)[:, None]
        if material == "brick":
            texture[(down % 4 == 0)[:, 0]] *= 1.22
            shift = 4 * ((down // 4) % 2)
            texture *= np.where((across + shift) % 9 == 0, 1.14, 1)
        elif material == "stone":
            texture[(down % 9 == 0)[:, 0]] *= 0.8
            shift = 7 * ((down // 9) % 2)
            texture *= np.where((across + shift) % 15 == 0, 0.84, 1)
        elif material == "panel":
            texture[(down % 20 == 0)[:, 0]] *= 0.7
            texture[:, across % 28 == 0] *= 0.75
        colours = np.clip(base * texture[..., None], 0, 255).astype(np.uint8)
        self.colours.paste(Image.fromarray(colours), (left, high))

    def _windows(self, x, width, ground_m, storey_m, storeys, base, trim):
        rng = self._rng
        columns = max(1, int(width / rng.uniform(1.7, 3.2)))
        pitch = width / columns
        window_m = min(rng.uniform(0.9, 1.7), pitch * 0.72)
        tall_m = storey_m * rng.uniform(0.5, 0.78)
        style = str(
            rng.choice(
                ["plain", "arch", "shutters", "balcony", "ribbon", "framed"],
                p=[0.24, 0.14, 0.16, 0.16, 0.12, 0.18],
            )
        )
        frame = (235, 232, 225) if rng.random() < 0.6 else trim * 0.6
        shutter = rng.integers(30, 170, 3)
        panes = int(rng.integers(1, 4))
        bars = int(rng.integers(0, 3))
        skip = rng.random(columns) < 0.08
        for storey in range(storeys - 1):
            y = ground_m + storey * storey_m + 0.62 * (storey_m - tall_m)
            if style == "ribbon":
                self._pane(x + 0.4, y, width - 0.8, tall_m, frame, columns, 0)
                continue
            for column in range(columns):
                if skip[column]:
                    continue
                at = x + (column + 0.5) * pitch - window_m / 2
                if style == "framed":
                    self._box(
                        at - 0.18, y - 0.15, window_m + 0.36, tall_m + 0.4, trim
                    )
                if style == "arch":
                    self._arch(at - 0.1, y, window_m + 0.2, tall_m + 0.1, trim)
                    self._num_panes += 1
                    self._arch(
                        at, y, window_m, tall_m, (48, 56, 66),
                        kind=2, pane=self._num_panes,
                    )  # fmt: skip
                else:
                    self._pane(at, y, window_m, tall_m, frame, panes, bars)
                if style == "shutters" and pitch > 1.7 * window_m:
                    for side in (at - 0.42 * window_m, at + 1.02 * window_m):
                        self._box(side, y, 0.4 * window_m, tall_m, shutter)
                if style == "balcony":
                    wide = window_m + 0.7
                    self._box(at - 0.35, y - 0.2, wide, 0.18, trim, kind=3)
                    for bar in np.arange(at - 0.35, at + wide - 0.35, 0.24):
                        self._box(bar, y, 0.07, 0.85, (40, 42, 46))
                    self._box(at - 0.35, y + 0.82, wide, 0.07, (40, 42, 46))
                else:
                    self._box(
                        at - 0.1, y - 0.14, window_m + 0.2, 0.13, trim, kind=3
                    )

    def _pane(self, x, y, width, height, frame, columns, bars):
        rng = self._rng
        self._num_panes += 1
        dark = rng.uniform(0.7, 1.3) * np.array([50, 58, 68])
        self._box(x, y, width, height, frame)
        inner = (x + 0.07, y + 0.07, width - 0.14, height - 0.14)
        self._box(*inner, dark, kind=2, pane=self._num_panes)
        if rng.random() < 0.25:  # a curtain or a blind
            tone = rng.uniform(140, 220) * rng.normal(1, 0.05, 3)
            drop = inner[3] * rng.uniform(0.2, 0.6)
            self._box(inner[0], y + height - 0.07 - drop, inner[2], drop, tone)
        for column in range(1, columns):
            self._box(
                x + width * column / columns - 0.04, y, 0.08, height, frame
            )
        for bar in range(1, bars + 1):
            self._box(x, y + height * bar / (bars + 1), width, 0.08, frame)

    def _shop(self, x, width, ground_m, trim):
        rng = self._rng
        front = rng.integers(25, 200, 3)
        self._box(x + 0.1, 0, width - 0.2, ground_m - 0.3, front)
        parts = max(2, int(width / rng.uniform(1.8, 3.0)))
        door = int(rng.integers(parts))
        for part in range(parts):
            at = x + 0.25 + part * (width - 0.5) / parts
            wide = (width - 0.5) / parts - 0.15
            low = 0.05 if part == door else rng.uniform(0.4, 0.6)
            self._num_panes += 1
            self._box(
                at, low, wide, ground_m - 1.2 - low, (66, 72, 78),
                kind=2, pane=self._num_panes,
            )  # fmt: skip
            if part != door:  # what is on show
                for _ in range(3):
                    self._box(
                        at + rng.uniform(0, 0.7) * wide, low + 0.05,
                        rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.8),
                        rng.integers(40, 235, 3),
                    )  # fmt: skip
        board = rng.integers(15, 235, 3)
        self._box(x + 0.2, ground_m - 1.0, width - 0.4, 0.72, board)
        ink = (240, 236, 220) if board.mean() < 128 else (30, 28, 34)
        self._letters(
            x + rng.uniform(0.5, 0.3 * width), ground_m - 0.9, 0.5,
            int(rng.integers(4, 10)), ink, limit=x + width - 0.5,
        )  # fmt: skip
        if rng.random() < 0.45:
            stripe = rng.integers(40, 235, 3)
            for number, at in enumerate(
                np.arange(x + 0.2, x + width - 0.5, 0.45)
            ):
                colour = stripe if number % 2 else (232, 228, 218)
                self._box(at, ground_m - 1.65, 0.45, 0.62, colour, kind=3)

    def _house_front(self, x, width, ground_m, base, trim):
        rng = self._rng
        self._box(x, 0, width, rng.uniform(0.4, 0.9), trim * 0.85)
        door = x + rng.uniform(0.15, 0.7) * width
        colour = rng.integers(20, 180, 3)
        self._box(door - 0.15, 0, 1.4, 2.65, trim)
        self._box(door, 0.1, 1.1, 2.2, colour)
        self._box(door + 0.12, 1.2, 0.35, 0.85, colour * 0.7)
        self._box(door + 0.62, 1.2, 0.35, 0.85, colour * 0.7)
        if rng.random() < 0.3:
            self._box(door - 1.6 if door - x > 2 else door + 1.5, 1.2, 0.5, 0.4,
                      rng.integers(150, 250, 3))  # fmt: skip
        wide = rng.uniform(0.9, 1.5)
        for at in np.arange(
            x + 0.6, x + width - wide, wide * rng.uniform(1.5, 2.2)
        ):
            if abs(at + wide / 2 - door - 0.55) > wide / 2 + 0.8:
                self._pane(at, 1.0, wide, ground_m - 1.9, (228, 224, 216), 2, 0)
                self._box(at - 0.1, 0.88, wide + 0.2, 0.12, trim, kind=3)

    def _roof(self, x, width, top, trim):
        rng = self._rng
        style = str(rng.choice(["cornice", "mansard", "gable", "parapet"],
                               p=[0.4, 0.26, 0.18, 0.16]))  # fmt: skip
        tiles = np.array([(92, 66, 58), (70, 74, 82), (120, 78, 62)])[
            int(rng.integers(3))
        ]
        if style == "cornice":
            self._box(x - 0.1, top, width + 0.2, 0.45, trim, kind=3)
            self._box(x - 0.1, top + 0.45, width + 0.2, 0.5, tiles, kind=3)
        elif style == "parapet":
            self._box(x, top, width, rng.uniform(0.6, 1.2), trim, kind=3)
        else:
            high = rng.uniform(1.8, 3.0)
            self._box(x - 0.1, top, width + 0.2, 0.25, trim, kind=3)
            slope = min(width / 2, high) if style == "gable" else 0.6
            points = [(x, top + 0.25), (x + slope, top + high),
                      (x + width - slope, top + high),
                      (x + width, top + 0.25)]  # fmt: skip
            points = [
                (
                    (px + STRIP_M / 2) * PIXELS_PER_M,
                    (STRIP_HEIGHT_M - py) * PIXELS_PER_M,
                )
                for px, py in points
            ]
            values = (_rgb(tiles), 3, 0)
            for draw, value in zip(self._draws, values, strict=True):
                draw.polygon(points, fill=value)
            if style == "mansard":
                for at in np.arange(x + 1.2, x + width - 1.6, 2.6):
                    self._pane(at, top + 0.6, 0.9, 1.1, trim, 2, 0)
        if rng.random() < 0.5:
            self._box(x + rng.uniform(0.1, 0.8) * width, top + 0.4, 0.7, 2.2,
                      (126, 82, 70), kind=3)  # fmt: skip

    def _ivy(self, x, width, top):
        rng = self._rng
        for _ in range(90):
            y = top * rng.random() ** 1.6
            at = x + width * (0.5 + rng.normal(0, 0.22))
            colour = np.array([52, 92, 40]) * rng.uniform(0.7, 1.35)
            self._box(at, y, 0.35, 0.35, colour)

    def _hanging_sign(self, x, ground_m):
        rng = self._rng
        colour = rng.integers(20, 240, 3)
        self._box(x, ground_m + 0.3, 0.75, 1.9, colour)
        ink = (240, 238, 228) if colour.mean() < 128 else (30, 30, 36)
        for number in range(3):
            top = ground_m + 0.45 + 0.58 * number
            self._letters(x + 0.15, top, 0.4, 1, ink, limit=x + 1)

    def _letters(self, x, y, size, count, ink, *, limit):
        """Marks like letters: strokes on a grid of three by three."""
        rng = self._rng
        for _ in range(count):
            if x + size * 0.6 > limit:
                return
            for stroke in rng.choice(9, int(rng.integers(4, 7)), replace=False):
                row, column = divmod(int(stroke), 3)
                self._box(x + column * size / 5, y + row * size / 3,
                          size / 5, size / 3.2, ink)  # fmt: skip
            x += size * 0.85


def _smooth_noise(rng, height, width, *, cells):
    """float32 [height, width] from 0 to 1, smooth over the cells."""
    coarse = rng.random((cells + 1, cells + 1)).astype(np.float32)
    image = Image.fromarray(coarse)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _rgb(colour):
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _to_bytes(colours):
    return (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)


def _to_float(image):
    return np.asarray(image).astype(np.float32) / 255.0
