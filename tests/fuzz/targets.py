"""What is fuzzed: a format, its reader, and what counts as a failure.

Every mutation must end in one of three ways: the reader gives what it gave
before ("same"), or refuses it by a sentence of ours ("refused"), or gives
something else ("changed"). Anything else is a failure, and so is "changed"
where a target has digests or checksums (`silent` is False).
"""

import hashlib
from pathlib import Path

import h5py
import mutations
import numpy as np
import scipy.io
import toy_images
import toy_search
from paths import ROOT

import sare_tf
from sare_tf import export, index, serving
from sare_tf.model.pretrained import (
    safetensors_file,
    torch_file,
    weights_file,
)
from sare_tf.pages import locate_server
from sare_tf.pages.options import ServeOptions
from sare_tf.records import stored_image
from sare_tf.records.records import Records
from sare_tf.records.shard_plan import Preparation
from sare_tf.search import index_changes, locator, part_protocol
from sare_tf.search.gallery import Gallery
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions
from sare_tf.training import run_folder
from sare_tf.training.options import ExportOptions
from sare_tf.weights import mat_file

_REFUSALS = (ValueError, FileNotFoundError)


def _digest(*arrays) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Folder:
    """A folder of files, of which one is damaged at a time."""

    # Whether a change may go unnoticed, since the format has no checksums.
    silent = False
    # What the message of a refusal begins with.
    prefix = "Expected"

    def __init__(self, root: Path):
        self.path = self.make(root)
        self._files = {
            path: path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and self.is_read(path)
        }
        self._whole = self.read()

    def is_read(self, path: Path) -> bool:
        """Whether the reader reads a file."""
        return True

    def attempt(self, rng: np.random.Generator) -> str:
        """Damages a file, reads the folder, and mends the file."""
        paths = list(self._files)
        path = paths[rng.integers(len(paths))]
        content = self._files[path]
        damage = mutations.mutated
        if path.suffix == ".json":
            damage = mutations.mutated_json
        if rng.random() < 0.02:
            path.unlink()
        elif rng.random() < 0.03:
            path.write_bytes(self._files[paths[rng.integers(len(paths))]])
        else:
            path.write_bytes(damage(content, rng))
        try:
            return "same" if self.read() == self._whole else "changed"
        except _REFUSALS as error:
            if not str(error).startswith(self.prefix):
                raise
            return "refused"
        finally:
            path.write_bytes(content)


class WholeRecords(Folder):
    """A folder of records: opened, and all images read."""

    name = "records"

    def make(self, root):
        return toy_search.records(root)

    def is_read(self, path):
        return path.suffix != ".csv"

    def read(self):
        opened = Records(self.path)
        table = opened.manifest
        return (
            table.to_csv(),
            opened.fingerprint,
            opened.metadata["made_from"],
            list(opened.read_images(table.iloc[::-1])),
        )


class Indexes(Folder):
    """An index of two segments with removed images: opened and searched."""

    name = "indexes"

    def make(self, root):
        model = toy_search.export(root / "export")
        out = root / "index"
        index.run(
            IndexOptions(
                records=toy_search.records(root), export=model, index=out
            )
        )
        more = toy_search.records(root / "more", first_place=20, places=2)
        index_changes.add(index=out, records=more, export=model)
        ids = root / "ids.txt"
        ids.write_text(Index.open(out).manifest["image_id"].iloc[4])
        index_changes.remove(index=out, ids=ids)
        self._queries = toy_search.unit(0, 5, toy_search.DIMENSION)
        return out

    def read(self):
        opened = Index.open(self.path)
        rows, distances = opened.search(self._queries, 7)
        exported = opened.metadata["export_fingerprint"]
        return opened.manifest.to_csv(), exported, _digest(rows, distances)


class Exports(Folder):
    """An export: loaded, and two photographs embedded."""

    name = "exports"

    def make(self, root):
        kept = ROOT / "tests" / "kept" / "v0.1.0" / "checkpoints"
        return export.run(
            ExportOptions(checkpoints=kept, export=root / "export")
        )

    def is_read(self, path):
        return "assets.extra" not in path.parts

    def read(self):
        servable = serving.load(self.path)
        images = [toy_search.jpeg(place, 0) for place in (1, 2)]
        return servable.fingerprint, _digest(*servable(images))


class Networks(Folder):
    """A network in a .keras file: loaded."""

    name = "networks"

    def make(self, root):
        folder = root / "networks"
        folder.mkdir()
        _embedder().save(folder / "model.keras")
        return folder

    def read(self):
        network = run_folder.load_embedder(self.path / "model.keras")
        return _digest(*[weight.numpy() for weight in network.weights])


class Checkpoints(Folder):
    """The folder of a run of two epochs: resumed, and its best epoch loaded."""

    name = "checkpoints"
    _CONFIG = {"learning_rate": 0.1}

    def make(self, root):
        self.path = root / "checkpoints"
        run, network = self._run(), _embedder()
        for epoch, recall in enumerate((0.5, 0.25)):
            run.finish_epoch(
                {"epoch": epoch, "recall_at": {1: recall, 5: 0.75}},
                network=network,
                remembered=np.arange(12).reshape(3, 4) - 1,
            )
        return self.path

    def _run(self):
        return run_folder.RunFolder(self.path, self._CONFIG, may_change=())

    def read(self):
        run = self._run()
        network, remembered = run.load()
        best = run_folder.load_embedder(self.path)
        weights = [*network.weights, *best.weights]
        digest = _digest(remembered, *[weight.numpy() for weight in weights])
        return digest, run.last, run.best, repr(run.history)


def _embedder():
    return sare_tf.build_embedder(backbone="small", num_clusters=2)


class Weights(Folder):
    """Files of weights by others, which have no digests of all they hold."""

    name = "weights"
    silent = True
    # `weight_files` names the file in the messages of these readers.
    prefix = ""

    def make(self, root):
        folder = root / "weights"
        folder.mkdir()
        rng = np.random.default_rng(0)
        state = {
            "layer.weight": rng.normal(size=(4, 3)).astype(np.float32),
            "layer.bias": np.float32([1, 2]),
        }
        torch_file.write(folder / "a.pth", state)
        safetensors_file.write(folder / "b.safetensors", state)
        np.savez(folder / "c.npz", **state)
        net = {"w": state["layer.bias"], "layers": [{"a": 1.5}, {"b": "c"}]}
        for name in ("d.mat", "e.mat"):
            scipy.io.savemat(
                folder / name, {"net": net}, do_compression=name == "d.mat"
            )
        with h5py.File(folder / "f.mat", "w", userblock_size=512) as file:
            for name, array in state.items():
                file[f"net/{name}"] = array
        return folder

    def read(self):
        found = [
            (name, _digest(array.numpy()))
            for path in sorted(self.path.glob("[abc].*"))
            for name, array in weights_file.read_arrays(path).items()
        ]
        nets = [
            repr(mat_file.read(path, "net"))
            for path in sorted(self.path.glob("*.mat"))
        ]
        return found, nets


class Images:
    """Photographs among good ones: the builder and the export agree on each."""

    name = "images"
    silent = True

    def __init__(self, root: Path):
        self._servable = serving.load(toy_search.export(root / "export"))
        self._good = toy_search.jpeg(1, 0)
        self._expected, _ = self._servable([self._good])
        self._images = [
            *toy_images.GOOD.values(),
            *toy_images.DEEP.values(),
            toy_images.TURNED,
        ]

    def attempt(self, rng):
        image = self._images[rng.integers(len(self._images))]
        image = mutations.mutated(image, rng)
        descriptors, valid = self._servable([self._good, image, self._good])
        assert valid[[0, 2]].all()
        np.testing.assert_allclose(
            descriptors[[0, 2]], self._expected.repeat(2, axis=0), atol=1e-6
        )
        reason = ""
        try:
            stored_image.prepare(image, box=None, preparation=Preparation())
        except ValueError as error:
            reason = str(error)
        # The builder refuses what the export refuses, and nothing else.
        assert valid[1] == (not reason), reason
        return "refused" if reason else "same"


class Requests:
    """Requests to the server of locate: no answer of 500 and above."""

    name = "requests"
    silent = True

    def __init__(self, root: Path):
        records = toy_search.records(root)
        model = toy_search.export(root / "export")
        out = index.run(
            IndexOptions(records=records, export=model, index=root / "index")
        )
        search = locator.Locator(index=out, export=model)
        gallery = Gallery(records, search.index)
        server = locate_server.LocateServer(
            search, gallery, k=3, limits=ServeOptions(upload_mebibytes=1)
        )
        self._client = server.app.test_client()
        held = part_protocol.describe(search.index)
        self._search = part_protocol.Question(
            index=held["index"],
            k=3,
            descriptors=toy_search.unit(1, 2, toy_search.DIMENSION),
            where=np.arange(held["images"]) % 2 == 0,
        ).as_json()

    def attempt(self, rng):
        body = toy_search.jpeg(2, 7)
        path, headers = "/locate?k=5", {}
        part = rng.integers(5)
        if part == 0:
            body = mutations.mutated(body, rng)
        elif part == 1:
            text = mutations.mutated(path.encode(), rng).decode("latin1")
            path = "/" + text.lstrip("/").replace("://", "")
        elif part == 2:
            name = str(
                rng.choice(
                    ["Host", "Origin", "Content-Type", "Range", "Accept"]
                )
            )
            value = mutations.mutated(b"http://localhost:80/", rng)
            headers[name] = "".join(
                chr(byte) for byte in value if 32 <= byte < 127
            )
        elif part == 3:
            path, body = "/part/search", mutations.mutated(self._search, rng)
        else:
            body = rng.bytes(int(rng.integers(0, 3000)))
        method = str(rng.choice(["POST", "POST", "POST", "GET", "PUT"]))
        answer = self._client.open(
            path, method=method, data=body, headers=headers
        )
        assert answer.status_code < 500, answer.get_data(as_text=True)
        return "same" if answer.status_code == 200 else "refused"


TARGETS = {
    target.name: target
    for target in (
        *(
            Images,
            WholeRecords,
            Indexes,
            Networks,
            Checkpoints,
            Exports,
            Weights,
            Requests,
        ),
    )
}
