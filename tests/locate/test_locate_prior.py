"""locate --near, --region and others: what is known of photographs."""

import json

import pytest
from absl import flags
from absl.testing import flagsaver
from toy_located import answers_of

from sare_tf import locate
from sare_tf.pages.options import LocateOptions


def test_only_images_that_agree_with_what_is_known(inputs, photos, tmp_path):
    # Place 2 stands at 500,200 to 500,204 m; the next one is 100 m away.
    near = {"near": [40.65063, -80.99761], "within_m": 110}
    results = answers_of(inputs, photos, k=18, **near)
    for _, answer in results:
        east = sorted(match.utm_east_m for match in answer.matches)
        assert east == [
            500_000 + 100 * p + v for p in (1, 2, 3) for v in (0, 2, 4)
        ]
        assert "compared with 9 images (split test) within 110 m of" in (
            answer.as_text()
        )
        assert "out of 18\n" in answer.as_text()
        searched = answer.as_json()["searched"]
        assert (searched["images"], searched["indexed"]) == (9, 18)
        assert answer.reliability is None
        # The nearest image of another place among those that were searched.
        first = answer.matches[0]
        other = next(m for m in answer.matches if not m.same_place)
        assert answer.confidence == pytest.approx(
            1 - (first.squared_distance / other.squared_distance) ** 0.5
        )
        assert type(answer).from_json(answer.as_json()) == answer
    with pytest.raises(ValueError, match="within 3 m of 0, 0. Received: none"):
        answers_of(inputs, photos, near=[0, 0], within_m=3)
    with pytest.raises(ValueError, match="taken from 2016. Received: an index"):
        answers_of(inputs, photos, taken_from="2016")


def test_what_is_known_on_the_command_line(inputs, photos, tmp_path):
    square = [[-81, 40], [-80.9975, 40], [-80.9975, 41], [-81, 41], [-81, 40]]
    region = tmp_path / "a.geojson"
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    with flagsaver.flagsaver():
        flags.FLAGS(
            [
                *("locate", f"--index={inputs['index']}"),
                *("--near=40.65063,-80.99761", "--within_m=110"),
                *(f"--export={inputs['export']}", f"--region={region}"),
            ]
        )
        options = LocateOptions.from_flags(photos=photos[:1])
    ((_, answer),) = locate.run(options)
    # The square ends between places 2 and 3.
    assert answer.searched.images == 6
    assert answer.searched.prior.endswith("-80.9976, inside the region")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"near": [1, 2]}, "within_m=None. Give both or none"),
        ({"within_m": 3.0}, "near=None"),
        ({"near": [1], "within_m": 3}, "near=.1"),
        ({"conditions": ["a"], "reject_below": 0.5}, "with --reject_below"),
    ],
)
def test_what_cannot_be_known(inputs, photos, given, message):
    with pytest.raises(ValueError, match=message):
        LocateOptions(**inputs, photos=photos, **given)


def test_no_prior_beside_the_page(inputs, records):
    with pytest.raises(ValueError, match="with --serve, whose page has fields"):
        LocateOptions(**inputs, records=records, serve=True, taken_from="2016")
