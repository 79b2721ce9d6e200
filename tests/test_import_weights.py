"""Files as others write them give the descriptors that numpy computes.

PyTorch's own files are compared with PyTorch in tests/weights.
"""

import logging
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import toy_search
import toy_weights
from absl import flags
from absl.testing import flagsaver

import sare_tf
from sare_tf import export, export_weights, import_weights, serving
from sare_tf.model.pretrained import array_ledger, torch_file
from sare_tf.training.options import ExportOptions
from sare_tf.training.run_folder import read_state
from sare_tf.weights import (
    formats,
    imported_network,
    netvlad_tf,
    network_building,
    openibl,
    weight_files,
)
from sare_tf.weights import (
    pytorch_netvlad as pytorch_format,
)
from sare_tf.weights.options import ExportWeightsOptions, ImportOptions

TORCHVISION = {
    "mean": 255 * np.array([0.485, 0.456, 0.406]),
    "deviation": 255 * np.array([0.229, 0.224, 0.225]),
}


@pytest.fixture(scope="module")
def found():
    return toy_weights.network()


@pytest.fixture(scope="module")
def maps(found):
    pixels = toy_weights.pictures()
    return {
        "caffe": toy_weights.features(found, pixels),
        "torchvision": toy_weights.features(found, pixels, **TORCHVISION),
    }


def hub(found):
    return toy_weights.torch_state(
        found,
        encoder="base_model.base.",
        pool="net_vlad.",
        whitening="pca_layer.",
    )


def training(found):
    state = toy_weights.torch_state(
        found, encoder="module.base_model.base.", pool="module.net_vlad."
    )
    return {"state_dict": state, "epoch": 5, "best_recall5": 0.9}


def pytorch_netvlad(found):
    state = toy_weights.torch_state(
        found, encoder="encoder.module.", pool="pool.module."
    )
    return {"epoch": 4, "state_dict": state, "parallel": True}


def patch_netvlad(found):
    state = toy_weights.torch_state(
        found, encoder="encoder.", pool="pool.", whitening="WPCA.0."
    )
    return {"num_pcs": toy_weights.WHITENED, "state_dict": state}


def benchmark(found):
    state = toy_weights.torch_state(
        found, encoder="module.backbone.", pool="module.aggregation."
    )
    return {"epoch_num": 3, "model_state_dict": state}


def write(path, found, kind):
    """Writes the file of a source."""
    if kind in ("struct", "struct73"):
        writer = {
            "struct": toy_weights.write_mat,
            "struct73": toy_weights.write_mat_73,
        }[kind]
        writer(path, toy_weights.matlab_layers(found))
    elif kind == "tensorflow":
        toy_weights.write_tensorflow(path, found)
    else:
        makers = (hub, training, pytorch_netvlad, patch_netvlad, benchmark)
        [make] = [make for make in makers if make.__name__ == kind]
        torch_file.write(path, make(found))


def embed(embedder):
    """Without compiling, which takes longer than the two pictures."""
    return keras.ops.convert_to_numpy(embedder(toy_weights.pictures()))


@pytest.fixture
def folder(tmp_path):
    """Emptied at the end: the files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("kind", "format_name", "images", "pytorch", "whitened"),
    [
        ("hub", "openibl", "caffe", True, True),
        ("training", "openibl", "caffe", True, False),
        ("pytorch_netvlad", "pytorch_netvlad", "torchvision", True, False),
        ("patch_netvlad", "patch_netvlad", "torchvision", True, True),
        ("benchmark", "benchmark", "torchvision", True, False),
        ("struct", "netvlad_mat", "caffe", False, True),
        ("struct73", "netvlad_mat", "caffe", False, True),
        ("tensorflow", "netvlad_tf", "caffe", False, True),
    ],
)
def test_descriptors_are_those_of_the_definition(
    folder, found, maps, kind, format_name, images, pytorch, whitened
):
    write(folder / "file", found, kind)
    read = weight_files.read(folder / "file")
    assert read.source == format_name
    embedder = network_building.build(read)
    result = embed(embedder)
    expected, other = (
        toy_weights.descriptors(
            found, maps[images], pytorch=either, whitened=whitened
        )
        for either in (pytorch, not pytorch)
    )
    np.testing.assert_allclose(result, expected, atol=2e-6)
    # The two ways to divide short vectors are told apart by these weights.
    assert np.abs(other - expected).max() > 1e-3


def small_vgg16(path, kernels, *, keras_order):
    """VGG16 of keras.applications without top, with weights of ours."""
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    layers = [layer for layer in network.layers if layer.weights]
    for index, (layer, (kernel, bias)) in enumerate(
        zip(layers, kernels, strict=True)
    ):
        if keras_order and index == 0:
            kernel = kernel[:, :, ::-1]
        layer.set_weights([kernel, bias])
    network.save_weights(path)


@pytest.mark.filterwarnings("ignore:.*HDF5 file via")
def test_vgg16_of_keras_and_of_openibl_agree(folder, found, maps):
    """One takes BGR, the other RGB, of the same Caffe network."""
    small_vgg16(
        folder / "vgg.weights.h5", found["convolutions"], keras_order=True
    )
    state = toy_weights.torch_state(found, encoder="", pool="pool.")
    state = {name: array for name, array in state.items() if name[:4] != "pool"}
    torch_file.write(folder / "vd16.pth", state)
    peaks = maps["caffe"].max(axis=(1, 2))
    expected = peaks / np.linalg.norm(peaks, axis=1, keepdims=True)
    for name in ("vgg.weights.h5", "vd16.pth"):
        read = weight_files.read(folder / name)
        assert read.aggregation is None
        embedder = network_building.build(read, aggregation="mac")
        result = embed(embedder)
        np.testing.assert_allclose(result, expected, atol=2e-6)
    with pytest.raises(ValueError, match="only a backbone.*aggregation='netv"):
        network_building.build(read, aggregation="netvlad")


def test_models_of_keras(tmp_path):
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    network.save(tmp_path / "vgg.keras")
    read = weight_files.read(tmp_path / "vgg.keras")
    for layer in network.layers:
        if layer.weights:
            kernel, bias = read.layers[layer.name]
            np.testing.assert_array_equal(kernel, layer.get_weights()[0])
            np.testing.assert_array_equal(bias, layer.get_weights()[1])
    embedder = sare_tf.build_embedder(backbone="small", num_clusters=2)
    embedder.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"\['backbone', 'netvlad'\].*export"):
        weight_files.read(tmp_path / "other.keras")
    with zipfile.ZipFile(tmp_path / "damaged.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ValueError, match="a model that Keras saved"):
        weight_files.read(tmp_path / "damaged.keras")


def test_openibls_pca_lies_beside_its_training(folder, found, maps):
    """U and lams make the projection; eigenvalues are at least 1e-9."""
    variances = np.float32([4.0, 0.25, 1e-12, 1e-4])
    scale = 1 / np.sqrt(np.float64([4.0, 0.25, 1e-9, 1e-4]))
    with h5py.File(folder / "pca.h5", "w") as file:
        file["U"] = found["projection"] / scale
        file["lams"] = variances
        file["mu"] = np.zeros((toy_weights.CLUSTERS * 512, 1))
        file["Utmu"] = -(found["bias"] / scale)[:, None]
    write(folder / "file", found, "training")
    read = weight_files.read(folder / "file", pca=folder / "pca.h5")
    np.testing.assert_allclose(read.projection, found["projection"], rtol=1e-5)
    np.testing.assert_allclose(read.bias, found["bias"], rtol=1e-5)
    assert read.notes == ()
    with pytest.raises(ValueError, match="U, lams and Utmu. Received: pca="):
        weight_files.read(folder / "file", pca=folder / "file")
    with h5py.File(folder / "pca.h5", "r+") as file:
        del file["lams"]
        file["lams"] = np.ones(3)
    with pytest.raises(ValueError, match=r"length 1536.*\(3,\)"):
        weight_files.read(folder / "file", pca=folder / "pca.h5")
    with pytest.raises(ValueError, match="Give it as --pca"):
        weight_files.read(folder / "pca.h5")
    write(folder / "hub", found, "hub")
    with pytest.raises(ValueError, match="Expected a PCA once"):
        weight_files.read(folder / "hub", pca=folder / "pca.h5")
    write(folder / "other", found, "patch_netvlad")
    with pytest.raises(ValueError, match="a PCA file only with OpenIBL"):
        weight_files.read(folder / "other", pca=folder / "pca.h5")


def test_from_file_to_served_descriptors_and_back(folder, found, maps, caplog):
    caplog.set_level(logging.INFO)
    flags.FLAGS.mark_as_parsed()
    write(folder / "vgg16_netvlad.pth", found, "hub")
    toy_search.photographs(folder / "photos", views=(1, 1), places=3)
    with flagsaver.as_parsed(
        source=str(folder / "vgg16_netvlad.pth"),
        out=str(folder / "imported"),
        image_height="35",
        image_width="50",
        dataset=str(folder / "photos"),
    ):
        import_weights.main(["import_weights"])
    told = caplog.text
    assert "Network: openibl, vgg16 to block5_conv3; " in told
    assert "minus (123.68, 116.779, 103.939), divided by (1, 1, 1)" in told
    assert "NetVLAD: 3 clusters, 1536 dimensions" in told
    assert "without a bias" in told
    assert "Whitening: to 4 dimensions" in told
    assert "have lengths (1, 1)" in told
    assert "recall@1 " in told
    assert "expect recall@1 of about 0.8" in told
    config, _ = read_state(folder / "imported")
    assert config["imported"]["format"] == "openibl"
    assert len(config["imported"]["sha256"]) == 64

    exported = export.run(
        ExportOptions(checkpoints=folder / "imported", export=folder / "export")
    )
    servable = serving.load(exported)
    assert servable.metadata["whitening"] == {
        "dimension": 4,
        "fitted_to": "given by the source",
    }
    png = [tf.io.encode_png(x).numpy() for x in toy_weights.pictures()]
    expected = toy_weights.descriptors(
        found, maps["caffe"], pytorch=True, whitened=True
    )
    descriptors, valid = servable(png)
    assert valid.all()
    np.testing.assert_allclose(descriptors, expected, atol=2e-6)
    with pytest.raises(ValueError, match="whitened already. Received: whit"):
        export.run(
            ExportOptions(
                checkpoints=folder / "imported",
                export=folder / "export",
                whitening_dimension=2,
            )
        )

    with flagsaver.as_parsed(
        checkpoints=str(folder / "imported"),
        out=str(folder / "back.pth"),
        format="openibl",
    ):
        export_weights.main(["export_weights"])
    saved = torch_file.read(folder / "back.pth")
    state = hub(found)
    assert saved.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(saved[name].numpy(), array)
    # The same arrays as safetensors, and from Python.
    export_weights.run(
        ExportWeightsOptions(
            checkpoints=folder / "imported",
            out=folder / "back.safetensors",
            format="openibl",
        )
    )
    network = import_weights(folder / "back.safetensors")
    np.testing.assert_allclose(embed(network), expected, atol=2e-6)
    with pytest.raises(ValueError, match="new file. Received: out="):
        export_weights.run(
            ExportWeightsOptions(
                checkpoints=folder / "imported",
                out=folder / "back.pth",
                format="openibl",
            )
        )
    with pytest.raises(ValueError, match="mean .*pytorch-NetVlad fixes"):
        export_weights.run(
            ExportWeightsOptions(
                checkpoints=folder / "imported",
                out=folder / "other.pth",
                format="pytorch_netvlad",
            )
        )
    with pytest.raises(ValueError, match="format='keras'"):
        export_weights.run(
            ExportWeightsOptions(
                checkpoints=folder / "imported",
                out=folder / "other.pth",
                format="keras",
            )
        )


def test_a_bias_and_a_shorter_whitening(folder, found, maps):
    """vladv2 has a bias; the first dimensions of a whitening are another."""
    state = toy_weights.torch_state(
        found, encoder="encoder.", pool="pool.", whitening="WPCA.0."
    )
    bias = np.float32([0.5, -1.0, 2.0])
    state["pool.conv.bias"] = bias
    torch_file.write(folder / "file", state)
    read = weight_files.read(folder / "file")
    plain, short = (
        network_building.build(read, whitening_dimension=dimension)
        for dimension in (0, 2)
    )
    expected = toy_weights.descriptors(
        found, maps["torchvision"], pytorch=True, whitened=False, bias=bias
    )
    np.testing.assert_allclose(embed(plain), expected, atol=2e-6)
    first = (expected @ found["projection"] + found["bias"])[:, :2]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(short), first, atol=2e-6)
    with pytest.raises(ValueError, match="at most the 4 dimensions"):
        network_building.build(read, whitening_dimension=5)

    back = pytorch_format.to_saved(network_building.take_apart(plain))
    assert back["parallel"] is False
    assert back["state_dict"].keys() == {
        name for name in state if name[:4] != "WPCA"
    }
    for name, array in back["state_dict"].items():
        np.testing.assert_array_equal(array, state[name])
    with pytest.raises(ValueError, match="without whitening"):
        pytorch_format.to_saved(network_building.take_apart(short))
    with pytest.raises(ValueError, match="mean .*which OpenIBL fixes"):
        openibl.to_saved(network_building.take_apart(plain))


def test_a_network_without_a_place_in_those_files(tmp_path):
    embedder = sare_tf.build_embedder(backbone="small", num_clusters=2)
    with pytest.raises(ValueError, match="VGG16 up to conv5_3 with NetVLAD"):
        network_building.take_apart(embedder)


def stub(found, **changes):
    """OpenIBL's names, with arrays that take no room until they are read."""
    state = toy_weights.torch_state(
        found, encoder="base_model.base.", pool="net_vlad."
    )
    return {**state, **changes}


def refused(tmp_path, state, match):
    torch_file.write(tmp_path / "file", state)
    with pytest.raises(ValueError, match=match):
        weight_files.read(tmp_path / "file")
    (tmp_path / "file").unlink()


def test_arrays_without_a_place_or_missing(tmp_path, found):
    state = stub(found)
    extra = {**state, "fc.weight": np.ones((2, 2))}
    refused(tmp_path, extra, "with fc.weight, which have none")
    del state["base_model.base.28.bias"]
    refused(tmp_path, state, "Expected an array 'base_model.base.28.bias'")
    state = stub(found, **{"net_vlad.centroids": np.ones((4, 512))})
    refused(tmp_path, state, r"'net_vlad.conv.weight' to be of shape \(4, 512")
    state = stub(found, **{"net_vlad.centroids": np.full((3, 512), np.nan)})
    refused(tmp_path, state, "finite. Received: .* with NaN or infinity")
    refused(tmp_path, {"a.weight": np.ones(2)}, "tensors, such as a.weight")
    refused(tmp_path, {"epoch": 3}, "Expected a state_dict.*the keys epoch")
    refused(tmp_path, {}, "the keys none")
    same = {"a.module.b": np.ones(2), "a.b": np.ones(2)}
    refused(tmp_path, same, "differ by more than 'module.'. Received: .* 1 ")


def test_whole_numbers_are_no_weights(tmp_path):
    taken = array_ledger.ArrayLedger(
        tmp_path,
        {"a": array_ledger.StoredArray((2,), lambda: np.array([1, 2]))},
    )
    with pytest.raises(ValueError, match="floating point numbers.*int64"):
        taken.take("a", (2,))


def resnet_state(blocks=(2, 2, 2), *, convolutions=2):
    """Names of torchvision's ResNet in a Sequential; sizes do not matter."""
    state = {"backbone.0.weight": np.ones((64, 3, 7, 7))}
    for stage, count in enumerate(blocks, start=4):
        for block in range(count):
            for number in range(1, convolutions + 1):
                name = f"backbone.{stage}.{block}.conv{number}.weight"
                state[name] = np.ones((2, 2, 1, 1))
    return {**state, "aggregation.1.p": np.ones(1)}


def test_other_networks_of_the_benchmark(tmp_path):
    refused(tmp_path, resnet_state((3, 4, 5)), r"stage of \[3, 4, 5, 0\]")
    state = resnet_state()
    refused(tmp_path, state, "Expected an array 'backbone.1.weight'")


def test_a_backbone_that_does_not_fit(found):
    layers = {
        name: [kernel, bias]
        for name, (kernel, bias) in zip(
            imported_network.VGG16_LAYERS, found["convolutions"], strict=True
        )
    }
    first = layers.pop("block1_conv1")
    options = {
        "source": "openibl",
        "backbone": "vgg16",
        "preprocessing": imported_network.CAFFE_RGB,
    }
    with pytest.raises(ValueError, match="Received: block1_conv1 in only one"):
        network_building.build(
            imported_network.ImportedNetwork(layers=layers, **options),
            aggregation="mac",
        )
    layers["block1_conv1"] = [first[0][:2], first[1]]
    with pytest.raises(ValueError, match="of shapes .* for block1_conv1"):
        network_building.build(
            imported_network.ImportedNetwork(layers=layers, **options),
            aggregation="mac",
        )
    layers["block1_conv1"] = first
    netvlad = imported_network.NetVLADWeights(
        assignment=np.ones((8, 2)), centres=np.ones((2, 8))
    )
    with pytest.raises(ValueError, match="512 channels.*centres of 8"):
        network_building.build(
            imported_network.ImportedNetwork(
                layers=layers, aggregation=netvlad, **options
            )
        )
    kernel, bias = layers["block5_conv3"]
    layers["block5_conv3"] = [kernel, bias * np.nan]
    found = imported_network.ImportedNetwork(layers=layers, **options)
    with pytest.raises(ValueError, match="length 1 .*nan"):
        import_weights.check_norms(
            network_building.build(found, aggregation="mac"),
            height=32,
            width=32,
        )


def test_other_matlab_networks(tmp_path, found):
    layers = toy_weights.matlab_layers(found, whitened=False)
    layers = [
        (name, kind, weights and [np.ones((2, 3)), np.ones((2, 3))])
        for name, kind, weights in layers
    ]
    path = tmp_path / "net.mat"
    for changed, match in (
        ([*layers, ("fc6", "conv", None)], r"\['fc6'\]"),
        (layers[1:], "not all"),
        ([("relu5_3", "relu", None), *layers], r"\['relu5_3'\]"),
        (layers, r"'conv1_1.weights\{1\}' to be of shape"),
    ):
        for writer in (toy_weights.write_mat, toy_weights.write_mat_73):
            writer(path, changed)
            with pytest.raises(ValueError, match=match):
                weight_files.read(path)
    scipy.io.savemat(path, {"net": {"layers": np.ones(3)}})
    with pytest.raises(ValueError, match="a net of MatConvNet"):
        weight_files.read(path)
    scipy.io.savemat(path, {"other": 1})
    with pytest.raises(ValueError, match=r"'net', a struct.*no variable net"):
        weight_files.read(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match="'net', a struct"):
        weight_files.read(path)


def test_objects_of_matlab_classes(tmp_path):
    """As -v7.3 saves them: numbers that only MATLAB understands."""
    path = tmp_path / "net.mat"
    toy_weights.write_mat_73(path, [("postL2", "custom", None)])
    with h5py.File(path, "r+") as file:
        file["#refs#/layer0"].attrs["MATLAB_object_decode"] = np.int32(3)
    with pytest.raises(ValueError, match="objects of MATLAB classes.*struct"):
        weight_files.read(path)


def test_hdf5_that_points_elsewhere_or_declares_too_much(tmp_path):
    path = tmp_path / "net.mat"

    def refuse(match, change):
        toy_weights.write_mat_73(path, [("postL2", "custom", None)])
        with h5py.File(path, "r+") as file:
            del file["net/layers"]
            change(file["net"])
        with pytest.raises(ValueError, match=match):
            weight_files.read(path)

    refuse(
        "layers is a link",
        lambda net: net.__setitem__("layers", h5py.ExternalLink("a", "/b")),
    )
    refuse(
        "has 1099511627776 bytes",
        lambda net: net.create_dataset("layers", (1 << 38,), "f4", chunks=True),
    )
    refuse(
        "is stored in another file",
        lambda net: net.create_dataset(
            "layers", (4,), "f4", external=[("/etc/hostname", 0, 16)]
        ),
    )


def test_checkpoints_of_tensorflow_that_are_damaged(folder, found):
    write(folder / "model.ckpt", found, "tensorflow")
    # By its prefix, either file's name, or the folder.
    assert netvlad_tf.prefix(folder) == folder / "model.ckpt"
    index = folder / "model.ckpt.index"
    assert netvlad_tf.prefix(index) == folder / "model.ckpt"
    data = folder / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ValueError, match="whole checkpoint of TensorFlow 1"):
        weight_files.read(index)
    index.write_bytes(b"not one")
    with pytest.raises(ValueError, match="whole checkpoint of TensorFlow 1"):
        weight_files.read(folder)
    index.unlink()
    with pytest.raises(ValueError, match="a folder without, or with several"):
        weight_files.read(folder)


def test_files_that_are_none(tmp_path, found):
    with pytest.raises(FileNotFoundError, match="file of weights. Received: "):
        weight_files.read(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="Expected auto, openibl"):
        weight_files.read(tmp_path, format_name="torch")
    page = tmp_path / "vgg16_netvlad.pth"
    page.write_text("<html>Quota exceeded</html>")
    with pytest.raises(ValueError, match="is none of them.*web page"):
        weight_files.read(page)
    torch_file.write(page, stub(found))
    with pytest.raises(ValueError, match="format keras.* one of openibl"):
        weight_files.read(page, format_name="keras")
    with pytest.raises(ValueError, match="array 'encoder.0.weight'"):
        weight_files.read(page, format_name="patch_netvlad")


def test_the_flag_names_every_format():
    values = flags.FLAGS["format"].parser.enum_values
    assert values == ["auto", *formats.FORMATS]


def test_a_training_is_not_replaced(tmp_path):
    out = tmp_path / "run"
    (out / "epoch-0000").mkdir(parents=True)
    (out / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="which holds a training"):
        import_weights.run(ImportOptions(source=tmp_path / "absent", out=out))
    (out / "photo.jpg").touch()
    with pytest.raises(ValueError, match="would be replaced"):
        import_weights.run(ImportOptions(source=tmp_path / "absent", out=out))
