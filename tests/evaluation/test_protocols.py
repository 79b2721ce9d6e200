"""Protocols by name: their words, and numbers that are fixed in them."""

import re

import pytest

from sare_tf.evaluation import protocols


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_a_protocol_says_what_it_is(name):
    protocol = protocols.PROTOCOLS[name]
    words = protocols.describe(protocol)
    assert words.startswith("Recall@N is the share of queries")
    assert protocol.name == name
    assert protocol.used_by
    left_out = words.endswith("A query without any positive is left out.")
    missed = words.endswith("A query without any positive counts as a miss.")
    assert (left_out, missed) == (protocol.leaves_out, not protocol.leaves_out)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pitts30k", "a database image at most 25 m away."),
        ("place", "a database image of the same place_id."),
        ("nordland", "at most 10 frames away"),
        ("nordland_patchnetvlad", "at most 7 frames away"),
        ("nordland_selavpr", "at most 2 frames away"),
        ("nordland_vprbench", "at most 1 frames away"),
        ("nordland_vprbench", "every 10th is a query"),
        ("tokyo247", "Of 12 N images found, only the first of each panorama"),
        ("tokyotm", "Of 10 N images found, those with the query's timestamp"),
        ("tokyotm", "at most 25 m away, of another timestamp."),
        ("msls", "the subtask all."),
        ("msls_seq2seq", "Queries are sequences, 3 images of consecutive"),
        ("msls_seq2im", "around each image that has them; the database holds"),
        ("msls_im2seq", "Queries are images; the database holds sequences, 3"),
        ("roxford5k_easy", 'listed as "easy". Images listed as "junk" or "har'),
        ("roxford5k_medium", '"easy" or "hard". Images listed as "junk" are'),
        ("rparis6k_hard", 'listed as "hard". Images listed as "junk" or "eas'),
        ("oxford5k", "Average precision is the area"),
        ("gldv2", "Average precision@N is the sum"),
    ],
)
def test_words_follow_the_numbers(name, words):
    assert words in protocols.describe(protocols.PROTOCOLS[name])


def test_words_of_what_is_chosen():
    chosen = protocols.choose("radius", radius_m=12.5, heading_deg=40.0)
    assert re.search(
        "at most 12.5 m away, looking at most 40 degrees away from where",
        protocols.describe(chosen),
    )
    chosen = protocols.choose("frames", frames=3)
    assert "at most 3 frames away" in protocols.describe(chosen)
    chosen = protocols.choose("place", other_sequence=True)
    assert "own sequence are taken out of its" in protocols.describe(chosen)
    chosen = protocols.choose("msls", subtask="d2n")
    assert "the subtask d2n." in protocols.describe(chosen)
    chosen = protocols.choose("msls_seq2im", subtask="d2n", sequence_length=5)
    assert "sequences, 5 images" in protocols.describe(chosen)
    assert "the subtask d2n." in protocols.describe(chosen)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("pittsburgh", {}, "a protocol: radius, .*protocol='pittsburgh'"),
        (
            "pitts30k",
            {"radius_m": 10.0},
            "=25, which the protocol pitts30k fixes. .*positive_radius_m=10",
        ),
        ("place", {"heading_deg": 40.0}, "protocol='place', .*deg=40"),
        ("msls", {"subtask": "x2y"}, "s2w, .*Received: subtask='x2y'"),
        ("msls_seq2seq", {"sequence_length": 4}, "odd .*Received: .*=4"),
        ("msls_seq2seq", {"heading_deg": 40.0}, "'msls_seq2seq', .*deg=40"),
        ("radius", {"subtask": "d2n"}, "protocol='radius', subtask='d2n'"),
        ("frames", {"other_sequence": True}, "radius, place, list.*='frames'"),
    ],
)
def test_numbers_that_do_not_fit(name, numbers, message):
    with pytest.raises(ValueError, match=message):
        protocols.choose(name, **numbers)


def test_another_radius_is_no_matter_where_none_counts():
    chosen = protocols.choose("nordland", radius_m=10.0)
    assert chosen == protocols.PROTOCOLS["nordland"]
