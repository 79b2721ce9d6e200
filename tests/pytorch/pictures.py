"""Writes the JPEGs that networks are compared on.

    python tests/pytorch/pictures.py FOLDER

FOLDER/pictures/*.jpg, all 320 x 180: two that are rendered, and two real ones
where the shared data are (see SARE_TF_SHARED).
"""

import os
import sys
from pathlib import Path

import numpy as np

from sare_tf.city.moment import draw_moment
from sare_tf.city.place import paint_place
from sare_tf.city.rendering import render

ROOT = Path(__file__).parents[2]


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    shared = Path(os.environ.get("SARE_TF_SHARED", ROOT.parent / "shared"))
    real = sorted((shared / "data/ie_tower_320/images/queries").rglob("*.jpg"))
    for number, path in enumerate(real[:: max(1, len(real) // 2)][:2]):
        (folder / f"real{number}.jpg").write_bytes(path.read_bytes())
    for number in range(2):
        rng = np.random.default_rng(number)
        encoded = render(
            paint_place((number, 0, 0)),
            draw_moment(rng),
            rng,
            width=320,
            height=180,
        )
        (folder / f"rendered{number}.jpg").write_bytes(encoded)


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "pictures")
