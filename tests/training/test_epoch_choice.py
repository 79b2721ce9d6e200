"""Which epoch is the best, and what makes that doubtful."""

import pytest

from sare_tf.training import epoch_choice


def measured(epoch=1, recall=(0.2, 0.5, 0.6), **values):
    """An epoch with recall@1, @5 and @10."""
    recall = recall and dict(zip((1, 5, 10), recall, strict=True))
    return {"epoch": epoch, "recall_at": recall, **values}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (
            measured(recall=(0.1, 0.6, 0.6)),
            measured(recall=(0.9, 0.5, 0.9), mean_reciprocal_rank=0.9),
        ),
        (
            measured(recall=(0.3, 0.5, 0.6), mean_reciprocal_rank=0.1),
            measured(recall=(0.2, 0.5, 0.9), mean_reciprocal_rank=0.9),
        ),
        (
            measured(recall=(0.2, 0.5, 0.6), mean_reciprocal_rank=0.4),
            measured(recall=(0.2, 0.5, 0.9), mean_reciprocal_rank=0.3),
        ),
        (measured(recall=(0.2, 0.5, 0.9), loss=2.0), measured(loss=1.0)),
        (measured(loss=1.0), measured(loss=2.0)),
        (measured(loss=9.0), measured(epoch=0)),
        (measured(mean_reciprocal_rank=0.1), measured()),
        (measured(2, None, loss=9.0), measured(1, None, loss=1.0)),
    ],
    ids=["@5", "@1", "rank", "@10", "loss", "trained", "earlier version"]
    + ["without validation"],
)
def test_the_better_epoch_has_the_larger_score(better, worse):
    assert epoch_choice.score(better) > epoch_choice.score(worse)
    written = {str(k): v for k, v in (better["recall_at"] or {}).items()}
    from_json = better | {"recall_at": written or None}
    assert epoch_choice.score(from_json) == epoch_choice.score(better)


def history(*, queries=50, epochs=2):
    first = measured(epoch=0, val_queries=queries)
    return [first, *(measured(epoch=n) for n in range(1, epochs + 1))]


def test_an_untrained_best_epoch_is_doubtful():
    (sentence,) = epoch_choice.warnings(history(), "epoch-0000")
    assert "None of 2 epochs was better on validation than epoch 0" in sentence
    assert epoch_choice.warnings(history(), "epoch-0002") == []
    # Nothing was trained, or imported.
    assert epoch_choice.warnings(history(epochs=0), "epoch-0000") == []


def test_few_queries_are_doubtful():
    few, best = history(queries=49), "epoch-0001"
    (sentence,) = epoch_choice.warnings(few, best)
    assert "Validation has 49 queries. Fewer than 50" in sentence
    # Earlier versions did not count them.
    assert epoch_choice.warnings(history(queries=None), best) == []


def test_the_choice_in_words():
    state = {"history": history(queries=7), "best": "epoch-0002"}
    state["history"][2]["recall_at"] = {"1": 0.5, "5": 0.75, "10": 1.0}
    described = epoch_choice.describe(state, "epoch-0002")
    assert described.pop("warnings") == epoch_choice.warnings(
        state["history"], "epoch-0002"
    )
    assert described == {
        "epoch": "epoch-0002",
        "epochs": 2,
        "val_queries": 7,
        "recall_at": {"1": 0.5, "5": 0.75, "10": 1.0},
        "recall_at_before": {1: 0.2, 5: 0.5, 10: 0.6},
    }


def test_nothing_is_said_of_an_epoch_that_validation_did_not_choose():
    state = {"history": history(queries=7), "best": "epoch-0002"}
    assert epoch_choice.describe(state, "epoch-0000")["warnings"] == []
