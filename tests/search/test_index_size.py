"""What an index is said to take, before it is built."""

from sare_tf.search import index_size


def test_larger_trees_train_on_more_rows_which_take_memory():
    """Reordering from disk, ScaNN holds rows of training nine times."""

    def taken(tune_tree):
        return index_size.memory_bytes(
            1_000_000, 128, reorder_from="disk", tune_tree=tune_tree
        )

    # 1,000 leaves train on 100,000 rows; 4,000 leaves on 64 a leaf.
    assert taken(True) - taken(False) == 9 * 4 * 128 * (256_000 - 100_000)
    few = {"reorder_from": "memory", "tune_tree": True}
    assert index_size.memory_bytes(1000, 128, **few) < 2**22
