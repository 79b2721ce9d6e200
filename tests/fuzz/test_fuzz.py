"""A few mutations of every format; `make fuzz` tries 10,000."""

import fuzzing
import pytest

COUNTS = {
    "images": 15,
    "records": 30,
    "indexes": 25,
    "networks": 4,
    "checkpoints": 5,
    "exports": 6,
    "weights": 60,
    "requests": 12,
}


@pytest.mark.parametrize("name", COUNTS)
def test_damage_ends_in_a_sentence_or_changes_nothing(name, tmp_path):
    reports = []
    outcomes = fuzzing.fuzz(
        name, range(COUNTS[name]), tmp_path, report=reports.append
    )
    assert reports == []
    assert outcomes["refused"] > 0
    assert sum(outcomes.values()) == COUNTS[name]


def test_every_target_is_tried():
    assert COUNTS.keys() == fuzzing.TARGETS.keys()
