"""Options of training that make no sense are refused."""

import pytest
import toy_training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "steps"}, "halving, cosine"),
        ({"precision": "float16"}, "float32, mixed_bfloat16"),
        ({"warmup_epochs": 2}, "fewer epochs of warm-up"),
        ({"averaging_momentum": 1.0}, "at least 0 and below 1"),
        ({"optimizer": "lion"}, "sgd, adam"),
        ({"train_positives": "any"}, "train_positives='any'"),
        ({"augment": ("crop", "crop")}, "each effect once"),
        ({"augment": ("blur",)}, "augment='blur'"),
        ({"loss": "place_n_pairs", "tuples": "t"}, "leave --tuples out"),
    ],
)
def test_options_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        toy_training.options(**changes)
