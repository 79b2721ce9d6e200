"""What TensorBoard is given, read back by its own readers."""

import io

import numpy as np
import pandas as pd
import pytest
from finished_runs import events
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins import projector

from sare_tf.records.records import Records
from sare_tf.training import tensorboard, tensorboard_pictures
from sare_tf.training.hard_negatives import Mined

SIZE = {"height": 24, "width": 32}


@pytest.fixture
def records(toy_records):
    return Records(toy_records)


def mined(positive, negatives):
    """Of distances alone; what was chosen is not looked at."""
    negatives = np.asarray(negatives, np.float32)
    return Mined(
        positives=np.zeros(len(negatives), np.int64),
        negatives=np.zeros(negatives.shape, np.int64),
        positive_distances=np.asarray(positive, np.float32),
        negative_distances=negatives,
    )


def test_values_of_epochs_that_were_not_finished_are_removed(tmp_path):
    run = tmp_path / "run"
    log = tensorboard.TrainingLog(run / "tensorboard", epochs=0)
    for epoch in range(3):
        log.begin(epoch)
        log.values(10 * epoch, {"train/loss": 1.0 / (1 + epoch)})
        if epoch < 2:
            log.end()  # the last one is cut off
    log = tensorboard.TrainingLog(run / "tensorboard", epochs=2)
    assert [(step, tag) for step, tag, _ in events(run)] == [
        (0, "train/loss"),
        (10, "train/loss"),
    ]
    log.begin(2)
    log.values(20, {"train/loss": 0.25})
    log.end()
    assert [float(value) for _, _, value in events(run)] == [1.0, 0.5, 0.25]


def test_shares_and_histograms_of_a_mining_pass(tmp_path):
    """Of 2 x 2 negatives one is nearer than the positive: 0.1 < 0.2."""
    log = tensorboard.TrainingLog(tmp_path / "tensorboard", epochs=0)
    log.begin(0)
    log.mined(7, mined([0.2, 0.4], [[0.1, 0.9], [0.5, 1.7]]))
    log.end()
    found = {tag: (step, value) for step, tag, value in events(tmp_path)}
    assert found["mining/violating"] == (7, np.float32(0.25))
    # Buckets: from, to, count.
    step, positive = found["mining/positive_distance"]
    assert step == 7
    assert positive[:, 2].sum() == 2
    _, negative = found["mining/negative_distance"]
    assert negative[:, 2].sum() == 4
    np.testing.assert_allclose(
        [negative[0, 0], negative[-1, 1]], [0.1, 1.7], atol=1e-6
    )


def test_the_picture_shows_the_hardest_tuples_first(records, tmp_path):
    """Positive minus nearest negative: -0.1, 0.3, 0.1; so 1, 2, 0.

    The toy's images are of one colour each, by which they are found again.
    """
    found = mined([0.2, 0.6, 0.5], [[0.3, 0.4], [0.3, 0.9], [0.4, 0.6]])
    queries = records.rows("train", "query").index.to_numpy()
    database = records.rows("train", "database").index.to_numpy()
    tuples = np.column_stack(
        [queries[[0, 4, 8]], database[[0, 4, 8]], database[[2, 6, 10]]]
        + [database[[3, 7, 11]]]
    )
    log = tensorboard.TrainingLog(tmp_path / "tensorboard", epochs=0)
    log.begin(0)
    log.hardest(3, records, tuples, found, **SIZE)
    log.end()
    ((step, tag, value),) = events(tmp_path)
    assert (step, tag) == (3, "mining/hardest_tuples")
    width, height, png = value
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert picture.shape == (int(height), int(width), 3)
    # Cells of 200 x 150 pixels, frames of 4, gaps of 6, captions of 18.
    assert picture.shape == (6 + 3 * 182, 6 + 4 * 214, 3)
    encoded = list(
        records.read_images(records.manifest.iloc[tuples.reshape(-1)])
    )
    expected = [np.asarray(Image.open(io.BytesIO(each))) for each in encoded]
    for row, number in enumerate((1, 2, 0)):
        for column in range(4):
            top, left = 6 + 182 * row, 6 + 214 * column
            frame = picture[top + 1, left + 100]
            colour = [(90, 90, 90), (0, 158, 115)] + 2 * [(213, 94, 0)]
            np.testing.assert_array_equal(frame, colour[column])
            inner = picture[top + 4 : top + 154, left + 4 : left + 204]
            np.testing.assert_allclose(
                inner.mean(axis=(0, 1)),
                expected[4 * number + column].mean(axis=(0, 1)),
                atol=3,
            )
            caption = picture[top + 158 : top + 176, left : left + 200]
            assert (caption < 200).any()


@pytest.mark.parametrize("length", [3, 500])
def test_the_projector_keeps_distances_and_thumbnails(
    records, tmp_path, length
):
    """12 points lie in 11 dimensions: 200 components lose nothing."""
    rows = pd.concat(
        [records.rows("val", "query")[:7], records.rows("val", "database")[:5]]
    )
    descriptors = np.random.default_rng(0).normal(size=(12, length))
    log = tensorboard.TrainingLog(tmp_path, epochs=0)
    for _ in range(2):  # the second replaces the first
        log.projector(records, rows, descriptors, **SIZE)
    config = text_format.Parse(
        (tmp_path / "projector_config.pbtxt").read_text(),
        projector.ProjectorConfig(),
    )
    (shown,) = config.embeddings
    points = np.loadtxt(tmp_path / shown.tensor_path, delimiter="\t")
    for i in range(12):
        np.testing.assert_allclose(
            np.linalg.norm(points - points[i], axis=1),
            np.linalg.norm(descriptors - descriptors[i], axis=1),
            rtol=1e-4,
            atol=1e-3,
        )
    metadata = (tmp_path / shown.metadata_path).read_text().splitlines()
    assert metadata[0] == "image_id\tplace_id\trole"
    assert [line.split("\t")[0] for line in metadata[1:]] == list(
        rows["image_id"]
    )
    sprite = np.asarray(Image.open(tmp_path / shown.sprite.image_path))
    width, height = shown.sprite.single_image_dim
    assert (width, height) == (48, 36)
    assert sprite.shape == (4 * 36, 4 * 48, 3)  # 12 thumbnails: 4 x 4
    last = Image.open(io.BytesIO(list(records.read_images(rows))[11]))
    np.testing.assert_allclose(
        sprite[2 * 36 : 3 * 36, 3 * 48 :].mean(axis=(0, 1)),
        np.asarray(last).mean(axis=(0, 1)),
        atol=3,
    )
    assert (sprite[3 * 36 :] == 255).all()


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 640, (36, 48)), (640, 480, (48, 36)), (1, 1000, (1, 48))],
)
def test_thumbnails_keep_their_shape(height, width, expected):
    assert tensorboard_pictures.fit(height, width, longest=48) == expected
