"""The executor that works in this process."""

import pytest

from sare_tf.runtime import executors, progress


class _Bar:
    def __init__(self):
        self.counts = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        self.counts.append(count)


@pytest.fixture
def bars(monkeypatch):
    """What was shown: description, total, unit, and counts of each bar."""
    shown = []

    def bar(description, *, total, unit):
        shown.append((description, total, unit, _Bar()))
        return shown[-1][-1]

    monkeypatch.setattr(progress, "bar", bar)
    return shown


def test_items_are_done_in_order_with_a_bar(tmp_path, bars):
    done = []
    executor = executors.LocalExecutor("build", unit="image", size=len)
    executor.map(done.append, ["ab", "c", "def"], folder=tmp_path)
    assert done == ["ab", "c", "def"]
    ((description, total, unit, bar),) = bars
    assert (description, total, unit) == ("build", 6, "image")
    assert bar.counts == [2, 1, 3]


def test_an_error_ends_the_pass(tmp_path):
    done = []

    def fails(item):
        if item == 2:
            raise ValueError("the second")
        done.append(item)

    with pytest.raises(ValueError, match="the second"):
        executors.LocalExecutor("build").map(fails, [1, 2, 3], folder=tmp_path)
    assert done == [1]


def test_a_model_is_loaded_once(tmp_path):
    loaded, done = [], []

    def load():
        loaded.append("model")
        return loaded[-1]

    executors.LocalExecutor("embed").map(
        lambda *given: done.append(given), [1, 2], folder=tmp_path, load=load
    )
    assert done == [(1, "model"), (2, "model")]
    assert loaded == ["model"]
