"""PyTorch's files, written by hand: what is read, what is refused.

tests/pytorch reads and writes them against PyTorch itself.
"""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from sare_tf.model.pretrained import torch_file
from sare_tf.runtime import safe_pickle

STATE = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "bias": np.float32([0.5, -1]),
    "nested": {"epoch": 3, "score": 0.25, "parallel": True, "none": False},
    "name": "vgg16",
}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.pth"
    torch_file.write(path, STATE)
    assert torch_file.is_torch_file(path)
    found = torch_file.read(path)
    assert found["nested"] == STATE["nested"]
    assert found["name"] == "vgg16"
    for name in ("weight", "bias"):
        assert found[name].shape == STATE[name].shape
        np.testing.assert_array_equal(found[name].numpy(), STATE[name])


class _Named:
    """Pickled as a name alone, or as a call of it."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class _Storage:
    def __init__(self, kind, key, count):
        self.identity = ("storage", _Named("torch", kind), key, "cpu", count)


class _Pickler(pickle._Pickler):
    """Names what is not installed here, as PyTorch's pickles do."""

    def __init__(self, file, *, view=()):
        super().__init__(file, 2)
        self._view = view

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return (*value.identity, *self._view)
        return None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, _Named):
            self.write(f"c{value.module}\n{value.name}\n".encode())
            if value.arguments:
                self.save(tuple(value.arguments))
                self.write(b"R")
        else:
            super().save(value, save_persistent_id)


def tensor(storage, shape, stride, *, offset=0):
    return _Named(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage,
        offset,
        shape,
        stride,
        False,
        collections.OrderedDict(),
    )


def pickled(value, **options):
    out = io.BytesIO()
    _Pickler(out, **options).dump(value)
    return out.getvalue()


def write_zip(path, value, storages, *, order="little", extra=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled(value))
        archive.writestr("a/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"a/data/{key}", data)
        for name, data, *compression in extra:
            archive.writestr(name, data, *compression)


def write_old(path, value, storages, *, view=(None,), little=True, keys=None):
    """The container before PyTorch 1.6."""
    out = io.BytesIO()
    for part in (
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": little, "type_sizes": {}},
    ):
        pickle.dump(part, out, 2)
    out.write(pickled(value, view=view))
    pickle.dump(list(storages) if keys is None else keys, out, 2)
    for data, count in storages.values():
        out.write(struct.pack("<q", count) + data)
    path.write_bytes(out.getvalue())


def test_views_types_and_both_containers(tmp_path):
    """One storage of 12 numbers; a transposed part of it; halves; longs."""
    numbers = np.arange(12, dtype=np.float64)
    halves = np.float16([1.5, 2.5])
    values = collections.OrderedDict(
        transposed=tensor(
            shared := _Storage("DoubleStorage", "0", 12),
            (3, 2),
            (1, 4),
            offset=1,
        ),
        whole=_Named(
            "torch._utils",
            "_rebuild_parameter",
            tensor(shared, (12,), (1,)),
            True,
            collections.OrderedDict(),
        ),
        half=tensor(_Storage("HalfStorage", "1", 2), (2,), (1,)),
        steps=tensor(_Storage("LongStorage", "2", 1), (), ()),
        size=_Named("torch", "Size", [2, 3]),
    )
    longs = np.int64([7])
    data = {"0": numbers, "1": halves, "2": longs}
    write_zip(
        tmp_path / "new", values, {k: v.tobytes() for k, v in data.items()}
    )
    write_old(
        tmp_path / "old",
        values,
        {k: (v.tobytes(), v.size) for k, v in data.items()},
    )
    for name in ("new", "old"):
        assert torch_file.is_torch_file(tmp_path / name)
        found = torch_file.read(tmp_path / name)
        # Rows step by 1 and columns by 4, from the second number.
        np.testing.assert_array_equal(
            found["transposed"].numpy(), [[1, 5], [2, 6], [3, 7]]
        )
        np.testing.assert_array_equal(found["whole"].numpy(), numbers)
        np.testing.assert_array_equal(found["half"].numpy(), halves)
        assert found["half"].numpy().dtype == np.float16
        assert found["steps"].numpy() == 7
        assert found["size"] == (2, 3)


FLOATS = np.arange(4, dtype=np.float32).tobytes()
FOUR = _Storage("FloatStorage", "0", 4)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (tensor(FOUR, (2, 3), (3, 1)), r"\(2, 3\) outside of its storage"),
        (tensor(FOUR, (4,), (1,), offset=1), "outside of its storage"),
        (tensor(FOUR, (1 << 40,), (0,)), "in 4 numbers"),
        (tensor(FOUR, (2,), (-1,)), "strides"),
        (tensor(FOUR, (2,), (1, 1)), "strides"),
        (tensor(_Storage("FloatStorage", "9", 4), (4,), (1,)), "no member"),
        (tensor(_Storage("FloatStorage", "0", 5), (4,), (1,)), "16 bytes, n"),
        (tensor(_Storage("FloatStorage", "0", 1 << 40), (4,), (1,)), "a stor"),
        (tensor(_Storage("FloatStorage", "../0", 4), (4,), (1,)), "named '../"),
        (tensor(_Storage("Size", "0", 4), (4,), (1,)), "refers to a storage"),
        (_Named("os", "system", "touch MARK"), r"it names os\.system"),
        (_Named("builtins", "eval", "1"), "it names builtins.eval"),
        (_Named("torch.jit", "load", "1"), "it names torch.jit.load"),
    ],
)
def test_pickles_that_are_refused(tmp_path, monkeypatch, value, match):
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "a", {"a": value}, {"0": FLOATS})
    with pytest.raises(ValueError, match=f"(?s){match}.*only the state_dict"):
        torch_file.read(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ([("../evil", b"")], "the path '../evil'"),
        ([("/evil", b"")], "the path '/evil'"),
        ([("a\\..\\evil", b"")], "the path"),
        ([("C:/evil", b"")], "the path 'C:/evil'"),
        ([("a/more", b"0" * 99, zipfile.ZIP_DEFLATED)], "compressed member"),
        ([("b/data.pkl", b"")], "not one data.pkl"),
    ],
)
def test_archives_that_are_refused(tmp_path, extra, match):
    write_zip(tmp_path / "a", {}, {}, extra=extra)
    with pytest.raises(ValueError, match=match):
        torch_file.read(tmp_path / "a")


def test_sizes_that_are_refused(tmp_path, monkeypatch):
    write_zip(tmp_path / "a", {}, {"0": 40 * b"0"})
    monkeypatch.setattr(torch_file, "_MOST_BYTES", 40)
    with pytest.raises(ValueError, match=r"members of \d+ bytes"):
        torch_file.read(tmp_path / "a")
    monkeypatch.setattr(torch_file, "_MOST_PICKLE_BYTES", 3)
    with pytest.raises(ValueError, match=r"a pickle of \d+ bytes"):
        torch_file.read(tmp_path / "a")


def test_big_endian_numbers(tmp_path):
    write_zip(tmp_path / "a", {}, {}, order="big")
    with pytest.raises(ValueError, match="big-endian"):
        torch_file.read(tmp_path / "a")
    write_old(tmp_path / "a", {}, {}, little=False)
    with pytest.raises(ValueError, match="big-endian"):
        torch_file.read(tmp_path / "a")


def test_old_files_that_are_refused(tmp_path):
    path = tmp_path / "a"
    four = {"a": tensor(FOUR, (4,), (1,))}

    def refuse(match, *arguments, cut=0, **options):
        write_old(path, *arguments, **options)
        if cut:
            path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(ValueError, match=match):
            torch_file.read(path)

    refuse("a view of a storage", four, {}, view=(("1", 0, 2),))
    refuse("no numbers of the storages", four, {})
    refuse("that no tensor names", {}, {"0": (FLOATS, 4)})
    refuse("a storage of 5 numbers, not 4", four, {"0": (FLOATS, 5)})
    refuse("it is cut off", four, {"0": (FLOATS, 4)}, cut=2)
    refuse("requires a buffer", four, {"0": (FLOATS, 4)}, cut=20)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(3, 2)])
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    assert not torch_file.is_torch_file(path)
    with pytest.raises(ValueError, match="Expected a file that PyTorch saved"):
        torch_file.read(path)


def test_a_damaged_member(tmp_path):
    path = tmp_path / "a"
    torch_file.write(path, {"a": np.full(4, 7, np.float32)})
    content = path.read_bytes()
    seven = np.full(4, 7, np.float32).tobytes()
    path.write_bytes(content.replace(seven, np.ones(4, "<f4").tobytes()))
    with pytest.raises(ValueError, match="CRC"):
        torch_file.read(path)["a"].numpy()


def test_a_scalar_keeps_its_shape(tmp_path):
    value = {"dust_bin": np.asarray(1.5, np.float32)}
    torch_file.write(tmp_path / "a", value)
    assert torch_file.read(tmp_path / "a")["dust_bin"].numpy().shape == ()


def saved(value):
    """A file of PyTorch around what is no tensor."""
    content = io.BytesIO()
    _Pickler(content).dump(value)
    return content.getvalue()


def written(path, value):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", saved(value))
    return path


@pytest.mark.parametrize(
    "name",
    [
        ("lightning_fabric.utilities.data", "AttributeDict"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("argparse", "Namespace"),
        ("pathlib", "PosixPath"),
        ("builtins", "set"),
        ("__builtin__", "set"),
    ],
)
def test_what_lies_beside_a_network_is_not_loaded(tmp_path, name):
    """Of Lightning's checkpoints: it becomes an object without content."""
    path = written(
        tmp_path / "a", {"hyper_parameters": _Named(*name, [1]), "epoch": 3}
    )
    found = torch_file.read(path)
    assert found["epoch"] == 3
    assert type(found["hyper_parameters"]) is safe_pickle.Unread
    assert vars(found["hyper_parameters"]) == {}


@pytest.mark.parametrize(
    "name", [("builtins", "eval"), ("os", "system"), ("lightnings", "a")]
)
def test_other_names_are_refused(tmp_path, name):
    path = written(tmp_path / "a", {"other": _Named(*name, "1")})
    with pytest.raises(ValueError, match=f"it names {name[0]}.{name[1]}"):
        torch_file.read(path)


def test_quantised_tensors_are_refused(tmp_path):
    storage = _Storage("QInt8Storage", "0", 4)
    path = written(tmp_path / "a", {"w": tensor(storage, (4,), (1,))})
    with pytest.raises(ValueError, match="quantised; take the float32 file"):
        torch_file.read(path)
    quantised = _Named("torch._utils", "_rebuild_qtensor", 1, 2)
    path = written(tmp_path / "b", {"w": quantised})
    with pytest.raises(ValueError, match="quantised; take the float32 file"):
        torch_file.read(path)
