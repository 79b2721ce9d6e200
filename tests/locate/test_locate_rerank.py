"""locate --rerank: the new order, what is said of it, and its picture."""

import io
import json

import numpy as np
import pytest
import rerank_world
from PIL import Image

from sare_tf import evaluate, locate, serving
from sare_tf.evaluation import calibrating
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.evaluation.verifying import OnVal
from sare_tf.local_features.combination import Combination
from sare_tf.local_features.feature_source import FeatureSource
from sare_tf.pages import locate_picture
from sare_tf.pages.locate_server import LocateServer
from sare_tf.pages.options import LocateOptions
from sare_tf.records.records import Records
from sare_tf.search import local_index, locator, reranker
from sare_tf.search.answers import Answer
from sare_tf.search.gallery import Gallery
from sare_tf.search.opened_index import Index
from sare_tf.search.options import RerankOptions

RERANK = {
    "rerank": "rootsift",
    "rerank_top": 12,
    "local_count": 200,
    "local_side": 128,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An index of 12 places whose new order was measured on 12 others."""
    root = tmp_path_factory.mktemp("world")
    world = rerank_world.build(root)
    evaluate.run(
        EvaluationOptions(**world, **RERANK, evaluation=root / "evaluation")
    )
    return world


@pytest.fixture
def photos(tmp_path):
    """Photographs of all places of the split test, and of a blank wall."""
    paths = []
    for place in range(rerank_world.PLACES, 2 * rerank_world.PLACES):
        path = tmp_path / f"place{place:03d}.png"
        Image.fromarray(rerank_world.view(place, 5)).save(path)
        paths.append(path)
    wall = tmp_path / "wall.png"
    Image.fromarray(np.full((96, 128, 3), 180, np.uint8)).save(wall)
    return [*paths, wall]


def _run(world, photos, **options):
    options = {**world, **RERANK, **options}
    return [
        answer
        for _, answer in locate.run(LocateOptions(photos=photos, **options))
    ]


def test_only_what_a_prior_leaves_is_ordered_anew(world, photos):
    place = photos[0].stem
    (answer,) = _run(world, photos[:1], k=50, place_ids=(place,))
    assert {match.place_id for match in answer.matches} == {place}
    assert answer.searched.images == len(answer.matches)
    assert answer.searched.indexed > answer.searched.images
    assert all(match.inliers is not None for match in answer.matches)


def test_the_place_that_geometry_finds_comes_first(world, photos):
    *plain, _ = _run(world, photos, rerank=None, k=1)
    *answers, _ = _run(world, photos, k=3)
    places = [path.stem for path in photos[:-1]]
    right = [
        sum(
            answer.matches[0].place_id == place
            for answer, place in zip(those, places, strict=True)
        )
        for those in (plain, answers)
    ]
    assert right[0] <= 8
    assert right[1] == 12
    for before, answer in zip(plain, answers, strict=True):
        assert len(answer.matches) == 3
        assert answer.matches[0].same_place
        assert not answer.matches[1].same_place
        assert answer.matches[0].inliers > max(
            match.inliers for match in answer.matches[1:]
        )
        changed = answer.matches[0].image_id != before.matches[0].image_id
        assert ("chose the first match" in answer.reranked) == changed
        # The confidence is that of retrieval: it says nothing of another place.
        assert (answer.confidence is None) == changed
        assert answer.reranked in answer.as_text()
        assert "inliers" in answer.matches[0].as_text()


def test_re_ranked_answers_are_calibrated_and_rejected(world, photos, tmp_path):
    out = tmp_path / "evaluation"
    path = evaluate.run(
        EvaluationOptions(**world, **RERANK, evaluation=out, calibrate=True)
    )
    doubt = json.loads(path.read_text())["doubt"]
    assert set(doubt["scores"]) == {
        *("margin", "distance", "inliers", "combined"),
    }
    inliers = doubt["scores"]["inliers"]
    assert (
        inliers["recall_at_precision"]["100"]
        >= (doubt["scores"]["margin"]["recall_at_precision"]["100"])
    )
    file = world["index"] / "calibration_rerank.json"
    written = json.loads(file.read_text())
    assert written["queries"] == 12
    assert "inliers" in written["model"]["names"]
    (answer,) = _run(world, photos[:1], reject_below=0.01)
    assert answer.reliability.queries == 12
    assert answer.rejection.absent == 12
    # The plain answers have none.
    with pytest.raises(ValueError, match="because the index has none"):
        _run(world, photos, rerank=None, reject_below=0.5)
    file.unlink()


def test_val_without_its_places_is_verified_as_deeply(world, tmp_path):
    """Its inliers are those of verifying the first images that are left."""
    options = EvaluationOptions(
        **world,
        **{**RERANK, "rerank_top": 4},
        evaluation=tmp_path / "none",
        calibrate=True,
    )
    opened = {
        "records": Records(world["records"]),
        "index": Index.open(world["index"]),
    }
    servable = serving.load(world["export"])
    asked = calibrating.ask(options, **opened, servable=servable)
    extractor = reranker.load_extractor(options)
    source = local_index.source_of(
        opened["index"], extractor, opened["records"]
    )
    on_val = OnVal(options, opened["records"], asked, source, extractor)
    chosen = Combination(threshold=8, weight=0.5)
    new = on_val.in_new_order(chosen, "name", None)
    results = asked.results
    images = list(opened["records"].read_images(results.queries))
    database = list(opened["records"].read_images(results.database))
    verify = reranker.Verifier(
        extractor,
        FeatureSource(
            extractor,
            stored=None,
            read=lambda rows: [database[r] for r in rows],
        ),
        geometry="homography",
    )
    for query, image in enumerate(images):
        left = [
            row
            for row in results.rows[query]
            if row not in results.truth.positives[query]
        ]
        (evidence,) = verify([image], np.array([left[:4]]))
        expected = dict(zip(left, evidence.inliers.tolist(), strict=False))
        rows, inliers = new.absent.rows[query], new.absent.inliers[query]
        assert set(rows[:4]) == set(left[:4])
        for row, count in zip(rows[:4], inliers[:4], strict=True):
            assert count == expected[row]


def test_lines_lead_to_the_same_point_of_the_place(world, photos):
    """A place moves by a whole number of pixels between two views."""
    (answer,) = _run(world, photos[:1])
    lines = np.array(answer.matches[0].lines)
    assert ((lines > 0) & (lines < 1)).all()
    lines *= 2 * (rerank_world.WIDTH, rerank_world.HEIGHT)
    assert len(lines) >= 10
    moved = lines[:, 2:] - lines[:, :2]
    offset = np.median(moved, axis=0)
    assert np.abs(offset - offset.round()).max() < 0.2
    assert (np.abs(moved - offset).max(axis=1) < 2).mean() > 0.9


def test_the_page_gets_the_lines(world, photos):
    located = locator.Locator(
        index=world["index"],
        export=world["export"],
        rerank=RerankOptions(records=world["records"], **RERANK),
    )
    gallery = Gallery(world["records"], located.index)
    client = LocateServer(located, gallery, k=3).app.test_client()
    encoded = photos[0].read_bytes()
    written = client.post("/locate", data=encoded).get_json()
    (expected,) = located([encoded], k=3)
    assert len(expected.matches[0].lines) >= 10
    for match, one in zip(expected.matches, written["matches"], strict=True):
        assert one["inliers"] == match.inliers
        np.testing.assert_allclose(one["lines"], np.array(match.lines))
    for name in ("lines", "near"):
        script = client.get(f"/{name}.js")
        assert script.mimetype == "text/javascript"
        assert "class " in script.text


def test_json_holds_the_inliers_and_not_the_lines(world, photos):
    (answer,) = _run(world, photos[:1])
    written = answer.as_json()
    assert "lines" not in written["matches"][0]
    assert written["matches"][0]["inliers"] == answer.matches[0].inliers
    read = Answer.from_json(written)
    assert read.reranked == answer.reranked
    assert read.as_json() == written


def test_a_wall_without_features_gets_the_plain_answer(world, photos):
    """The wall has no direction either in this export: a faint corner does."""
    corner = np.full((96, 128, 3), 180, np.uint8)
    corner[:48] += 2
    file = io.BytesIO()
    Image.fromarray(corner).save(file, "PNG")
    photos[-1].write_bytes(file.getvalue())
    (plain,) = _run(world, photos[-1:], rerank=None)
    (answer,) = _run(world, photos[-1:])
    assert (
        answer.reranked == "not re-ranked, the photograph has no local features"
    )
    assert [match.image_id for match in answer.matches] == [
        match.image_id for match in plain.matches
    ]
    assert answer.confidence == plain.confidence
    assert answer.reranked in answer.as_text()


def test_another_geometry_has_no_measured_order(world, photos, caplog):
    (answer,) = _run(world, photos[:1], rerank_geometry="fundamental")
    assert "because" in caplog.text
    assert "was made for another --rerank_geometry" in caplog.text
    assert answer.matches[0].place_id == photos[0].stem


def test_what_is_missing_is_said(world, photos, tmp_path):
    with pytest.raises(ValueError, match="without local features, and no rec"):
        _run({**world, "records": None}, photos)
    with pytest.raises(ValueError, match="--reject_below and --rerank. Receiv"):
        _run(world, photos, reject_below=0.5)
    with pytest.raises(
        FileNotFoundError, match="rootsift, xfeat or the folder"
    ):
        _run(world, photos, rerank=str(tmp_path / "none"))


def test_the_picture_joins_what_agrees(world, photos, tmp_path, monkeypatch):
    joined = []
    real = locate_picture._join

    def join(left, right, lines):
        joined.append(len(lines))
        real(left, right, lines)

    monkeypatch.setattr(locate_picture, "_join", join)
    pictures = []
    for name, rerank in (("reranked", "rootsift"), ("plain", None)):
        path = tmp_path / f"{name}.png"
        _run(world, photos[:1], picture=str(path), rerank=rerank)
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    assert joined[0] >= 10
    assert joined[1:] == [0]
    assert pictures[0].shape == pictures[1].shape
    # Lines of #ffb000 over the images.
    orange = [
        ((one[..., 0] > 200) & (one[..., 2] < 60)).sum() for one in pictures
    ]
    assert orange[0] > orange[1] + 100


def test_a_warm_process_gets_the_same_settings(world, photos, monkeypatch):
    monkeypatch.chdir(world["index"].parent)
    options = LocateOptions(
        photos=photos,
        keep_warm=True,
        **{**world, **RERANK, "records": "records"},
    )
    settings = options.warm_settings["rerank"]
    assert settings["rerank"] == "rootsift"
    assert settings["records"] == str(world["records"])
    assert RerankOptions(**settings).rerank_top == 12
    plain = LocateOptions(photos=photos, **world)
    assert plain.warm_settings["rerank"] is None
