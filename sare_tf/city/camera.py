"""The camera: the rays of its pixels, and what they meet."""

import math

import numpy as np

from sare_tf.city.facade_canvas import STRIP_HEIGHT_M, STRIP_M
from sare_tf.city.moment import Moment

# Rays per pixel and axis.
SUPERSAMPLING = 2
_EYE_M = 1.6


class View:
    """Rays of a camera, and where they meet facades, ground or sky.

    h and w are rows and columns of rays: `SUPERSAMPLING` for each pixel.

    Attributes:
        height: h.
        width: w.
        distance_m: from the camera to the facades.
        x_m, y_m: float32 [h, w], where a ray meets the plane of the facades.
        facade: bool [h, w], whether the ray meets the strip of facades.
        ground: bool [h, w], whether it meets the ground before the facades.
        ground_x_m, ground_z_m: float32 [h, w], where it meets the ground.
        up: float32 [h, w], height that the ray gains per metre forward.
        length_m: float32 [h, w], from the camera to what the ray meets.
    """

    def __init__(
        self, moment: Moment, *, distance_m: float, width: int, height: int
    ):
        self.width = width * SUPERSAMPLING
        self.height = height * SUPERSAMPLING
        self.distance_m = distance_m + moment.back_m
        self._camera_x_m = moment.x_m
        self._focal = 0.68 * self.width * moment.zoom
        self._yaw = math.radians(moment.yaw_deg)
        self._pitch = math.radians(moment.pitch_deg)
        across = (np.arange(self.width) - self.width / 2 + 0.5) / self._focal
        down = (np.arange(self.height) - self.height / 2 + 0.5) / self._focal
        across = across.astype(np.float32)[None, :]
        down = down.astype(np.float32)[:, None]
        forward = math.cos(self._pitch) + math.sin(self._pitch) * down
        up = math.sin(self._pitch) - math.cos(self._pitch) * down
        self.up = np.broadcast_to(up, (self.height, self.width))
        side = across * math.cos(self._yaw) + forward * math.sin(self._yaw)
        depth = -across * math.sin(self._yaw) + forward * math.cos(self._yaw)
        reach = self.distance_m / np.maximum(depth, 1e-3)
        self.x_m = self._camera_x_m + reach * side
        self.y_m = _EYE_M + reach * self.up
        below = _EYE_M / np.maximum(-self.up, 1e-4)
        self.ground = (self.up < 0) & (below < reach)
        self.ground_x_m = self._camera_x_m + below * side
        self.ground_z_m = below * depth
        self.facade = (
            ~self.ground
            & (depth > 1e-3)
            & (np.abs(self.x_m) < STRIP_M / 2 - 0.1)
            & (self.y_m < STRIP_HEIGHT_M - 0.1)
        )
        self.length_m = np.where(self.ground, below, np.minimum(reach, 120))

    def project(
        self, x_m: float, y_m: float, z_m: float
    ) -> tuple[float, float, float] | None:
        """Returns column, row and rays per metre of a point; None if behind."""
        side, depth = x_m - self._camera_x_m, z_m
        across = side * math.cos(self._yaw) - depth * math.sin(self._yaw)
        along = side * math.sin(self._yaw) + depth * math.cos(self._yaw)
        rise = y_m - _EYE_M
        forward = along * math.cos(self._pitch) + rise * math.sin(self._pitch)
        up = rise * math.cos(self._pitch) - along * math.sin(self._pitch)
        if forward < 1.0:
            return None
        scale = self._focal / forward
        return (
            self.width / 2 + across * scale,
            self.height / 2 - up * scale,
            scale,
        )
