"""Options of the city."""

import pytest

from sare_tf.city.options import CityOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"places": 9},
        {"image_width": 31},
        {"image_height": 31},
        {"queries_per_place": 0},
        {"database_per_place": 0},
    ],
)
def test_too_small_a_city_is_refused(wrong):
    ((name, value),) = wrong.items()
    expected = f"{name} to be .*at least .*{name}={value}"
    with pytest.raises(ValueError, match=expected):
        CityOptions(**{"out": "city", "places": 10, **wrong})


def test_the_folder_must_be_given():
    with pytest.raises(ValueError, match="Received no value for: --out"):
        CityOptions(places=10)
