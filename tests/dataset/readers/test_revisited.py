import pickle

import numpy as np
import pytest
import scipy.io
from toy_folders import column, touch, triples

from sare_tf.dataset import readers
from sare_tf.dataset.readers.collector import Source

NAMES = ["all_souls_000000", "all_souls_000001", "ashmolean_000002", "x_3"]
QUERIES = ["all_souls_000013", "oxford_002985"]
# The boxes are those of two queries of Oxford.
BOXES = [[136.5, 34.1, 648.5, 955.7], [1.0, 2.5, 9.4, 8.6]]
ANSWERS = [
    {"easy": [0, 2], "hard": [1], "junk": [3]},
    {"easy": [], "hard": [2], "junk": [0, 1]},
]
IDS = [
    "jpg/all_souls_000013.jpg#xywh=136,34,512,922",
    "jpg/oxford_002985.jpg#xywh=1,2,8,7",
]
EXPECTED = [
    (IDS[0], "jpg/all_souls_000000.jpg", "easy"),
    (IDS[0], "jpg/ashmolean_000002.jpg", "easy"),
    (IDS[0], "jpg/all_souls_000001.jpg", "hard"),
    (IDS[0], "jpg/x_3.jpg", "junk"),
    (IDS[1], "jpg/ashmolean_000002.jpg", "hard"),
    (IDS[1], "jpg/all_souls_000000.jpg", "junk"),
    (IDS[1], "jpg/all_souls_000001.jpg", "junk"),
]


@pytest.fixture
def root(tmp_path):
    return touch(tmp_path, *(f"jpg/{name}.jpg" for name in NAMES + QUERIES))


def pkl(root, **changes):
    """As the authors' pickles: places counted from 0."""
    gnd = [
        {"bbx": box} | {key: np.array(some) for key, some in answer.items()}
        for box, answer in zip(BOXES, ANSWERS, strict=True)
    ]
    truth = {"imlist": NAMES, "qimlist": QUERIES, "gnd": gnd} | changes
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, 2))


def cells(names):
    return np.array(names, object)[None]


def structs(answers, boxes=BOXES, **fields):
    """A 1 x Q struct of MATLAB, places counted from 1."""
    gnd = np.zeros(
        (1, len(answers)), [(name, object) for name in ("bbx", *fields)]
    )
    for query, (answer, box) in enumerate(zip(answers, boxes, strict=True)):
        gnd["bbx"][0, query] = np.array([box])
        for name, key in fields.items():
            gnd[name][0, query] = np.array([answer[key]], float) + 1
    return gnd


def test_pkl(root):
    pkl(root)
    found = readers.read(root, reader="revisited")
    assert triples(found) == EXPECTED
    assert column(found, "role") == {
        f"jpg/{name}.jpg": "database" for name in NAMES
    } | dict.fromkeys(IDS, "query")
    assert found.source(IDS[0]) == Source(
        "jpg/all_souls_000013.jpg", (136, 34, 648, 956)
    )
    assert found.source("jpg/x_3.jpg") == Source("jpg/x_3.jpg")


@pytest.mark.parametrize("count", [2, 1])
def test_mat(root, count):
    scipy.io.savemat(
        root / "gnd_roxford5k.mat",
        {
            "imlist": cells(NAMES),
            "qimlist": cells(QUERIES[:count]),
            "gnd": structs(
                ANSWERS[:count],
                BOXES[:count],
                easy="easy",
                hard="hard",
                junk="junk",
            ),
        },
    )
    found = readers.read(root, reader="revisited")
    assert triples(found) == EXPECTED[: 4 if count == 1 else 7]


def test_the_older_ground_truth(root):
    """gnd_oxford5k.mat: queries are database images; ok and junk."""
    scipy.io.savemat(
        root / "gnd_oxford5k.mat",
        {
            "imlist": cells(NAMES),
            "qidx": np.array([[2, 4]]),
            "gnd": structs(ANSWERS, ok="easy", junk="junk"),
        },
    )
    found = readers.read(root, reader="revisited")
    first = "jpg/all_souls_000001.jpg#xywh=136,34,512,922"
    assert triples(found)[:3] == [
        (first, "jpg/all_souls_000000.jpg", "positive"),
        (first, "jpg/ashmolean_000002.jpg", "positive"),
        (first, "jpg/x_3.jpg", "junk"),
    ]
    assert "jpg/all_souls_000001.jpg" in column(found, "role")


def test_absent_images_shift_nothing(root):
    pkl(root)
    for name in (NAMES[0], QUERIES[1]):
        (root / f"jpg/{name}.jpg").unlink()
    found = readers.read(root, reader="revisited")
    assert triples(found) == EXPECTED[1:4]
    reason = "named in the list, but no such file"
    assert found.rejected == [
        (f"jpg/{NAMES[0]}.jpg", reason),
        (f"jpg/{QUERIES[1]}.jpg", reason),
    ]


def test_places_beyond_the_list(root):
    gnd = [{"bbx": BOXES[0], "easy": [4]}, {"bbx": BOXES[1], "easy": [-1]}]
    for some, place in ((gnd, 4), (gnd[::-1], -1)):
        pkl(root, gnd=some)
        with pytest.raises(ValueError, match=f"from 0 to 3 .* {place} as easy"):
            readers.read(root, reader="revisited")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gnd": [{"bbx": BOXES[0]}]}, "2 queries, answers of 1"),
        ({"gnd": [{"easy": [1]}] * 2}, "KeyError.'bbx'"),
        ({"gnd": [{"bbx": [5, 5, 1, 9]}] * 2}, "no left, top, right, bottom"),
        ({"gnd": 5}, "TypeError"),
        ({"imlist": print}, r"it names builtins\.print|__builtin__\.print"),
    ],
)
def test_a_damaged_ground_truth(root, changes, message):
    pkl(root, **changes)
    with pytest.raises(ValueError, match=message):
        readers.read(root, reader="revisited")


def test_a_file_that_is_no_mat(root):
    (root / "gnd_rparis6k.mat").write_bytes(b"MATLAB 7.3 or so" * 40)
    with pytest.raises(ValueError, match="Get the file again"):
        readers.read(root, reader="revisited")


def test_a_name_that_leads_away(root):
    touch(root.parent, "secret.jpg")
    pkl(root, imlist=["../../secret", *NAMES[1:]])
    found = readers.read(root, reader="revisited")
    assert found.rejected == [
        ("jpg/../../secret.jpg", "leaves the dataset's folder by ..")
    ]
