"""`configs/retrieval_landmarks.flags`, all stages, on toy landmarks.

Google Landmarks trains and is evaluated; then the same flagfile, with another
reader and protocol, is evaluated on files in the form of Revisited Oxford.
"""

import json
import pickle

import pytest
import toy_search
from absl import flags
from absl.testing import flagsaver

import sare_tf.flags  # noqa: F401, defines them
from sare_tf import build_records, evaluate, export, index, train
from sare_tf.runtime import flagfiles
from sare_tf.search.opened_index import Index

pytestmark = pytest.mark.slow
# What makes it small. The neighbours and sizes are those of the flagfile.
SMALL = (
    *("--backbone=small", "--weights=", "--image_height=32"),
    *("--image_width=32", "--places_per_batch=4", "--images_per_place=2"),
    *("--epochs=1", "--num_workers=1", "--baseline_images=0"),
)
LANDMARKS, VIEWS = 4, 12


def _name(group, landmark, view):
    return f"{group:x}{landmark:x}{view:x}{0:013x}"


def _write(root, folder, name, landmark, view):
    path = root / folder / name[0] / name[1] / name[2] / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(toy_search.jpeg(landmark, view))


def _google_landmarks(root):
    """8 landmarks to train on; others with 12 images and a query each."""
    train_rows, index_rows, solution = [], [], []
    for landmark in range(8):
        for view in range(6):
            name = _name(1, landmark, view)
            _write(root, "train", name, 20 + landmark, view)
            train_rows.append(f"{name},http://x,{landmark}")
    for landmark in range(LANDMARKS):
        names = [_name(2, landmark, view) for view in range(VIEWS)]
        for view, name in enumerate(names):
            _write(root, "index", name, landmark, view)
            index_rows.append(name)
        query = _name(3, landmark, 0)
        _write(root, "test", query, landmark, 99)
        solution.append(f"{query},{' '.join(names)},Public")
    for name, lines in (
        ("train.csv", ["id,url,landmark_id", *train_rows]),
        ("index.csv", ["id", *index_rows]),
        ("retrieval_solution_v2.1.csv", ["id,images,Usage", *solution]),
    ):
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def _revisited_oxford(root):
    """Of a landmark, 6 images are easy, 5 hard and 1 is junk."""
    (root / "jpg").mkdir(parents=True)
    names, queries, truth = [], [], []
    for landmark in range(LANDMARKS):
        first = len(names)
        for view in range(VIEWS):
            names.append(f"landmark{landmark}_{view:06d}")
            (root / "jpg" / f"{names[-1]}.jpg").write_bytes(
                toy_search.jpeg(landmark, view)
            )
        queries.append(f"query_{landmark:06d}")
        (root / "jpg" / f"{queries[-1]}.jpg").write_bytes(
            toy_search.jpeg(landmark, 99)
        )
        places = list(range(first, first + VIEWS))
        truth.append(
            {
                "bbx": [1.0, 1.0, 30.0, 30.0],
                "easy": places[:6],
                "hard": places[6:11],
                "junk": places[11:],
            }
        )
    content = {"imlist": names, "qimlist": queries, "gnd": truth}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content, 2))
    return root


def _run(stage, *given):
    name = stage.__name__.rpartition(".")[2]
    with flagsaver.flagsaver():
        stage.main(
            flags.FLAGS(
                flagfiles.insert(
                    [
                        name,
                        "--flagfile=sare_tf:retrieval_landmarks",
                        *SMALL,
                        *given,
                    ]
                )
            )
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the commands of the flagfile's header were run."""
    root = tmp_path_factory.mktemp("landmarks")
    dataset = f"--dataset={_google_landmarks(root / 'data')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in (build_records, train, export, index, evaluate):
            _run(stage, dataset)
        yield root / "runs" / "landmarks"


def test_google_landmarks(trained):
    metrics = json.loads((trained / "evaluation/metrics.json").read_text())
    assert metrics["protocol"]["name"] == "gldv2"
    assert metrics["counts"]["queries"] == LANDMARKS
    assert metrics["counts"]["database"] == LANDMARKS * VIEWS
    assert metrics["landmarks"]["done"] == [
        "query expansion by 10 images (alpha 3)"
    ]
    assert metrics["recall_at"]["1"] == 1.0
    assert metrics["precisions"]["average_precision_at_100"] > 0.9
    assert Index.open(trained / "index").metadata["augment_database"] == 10
    model = json.loads((trained / "export/1/sare_tf.json").read_text())
    assert model["scales"] == [1, 0.7071, 0.5]


def test_revisited_oxford(trained, tmp_path):
    given = [
        f"--dataset={_revisited_oxford(tmp_path / 'data')}",
        "--reader=revisited",
        "--protocol=roxford5k_medium",
        f"--records={tmp_path / 'records'}",
        f"--export={trained / 'export'}",
        f"--index={tmp_path / 'index'}",
        f"--evaluation={tmp_path / 'evaluation'}",
    ]
    for stage in (build_records, index, evaluate):
        _run(stage, *given)
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert metrics["counts"]["queries_counted"] == LANDMARKS
    # By chance, it is near the share of positives, 0.23.
    assert metrics["precisions"]["average_precision"] > 0.9
    without = metrics["without_rerank"]["precisions"]
    assert without["average_precision"] > 0.5
