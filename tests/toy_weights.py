"""A small VGG16 with NetVLAD in numpy, and files of it as others write them."""

import h5py
import numpy as np
import scipy.io
import tensorflow as tf

CLUSTERS, WHITENED = 3, 4
# Channels of VGG16 divided by this would be another network: they are whole.
CHANNELS = {1: (64, 64), 2: (128, 128), 3: 3 * (256,), 4: 3 * (512,)}
CHANNELS[5] = CHANNELS[4]
RGB_MEAN = (123.68, 116.779, 103.939)
NAMES = [
    (block, number)
    for block, channels in CHANNELS.items()
    for number in range(1, len(channels) + 1)
]
INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def network(seed=0):
    """Kernels [3, 3, in, out], NetVLAD, and cluster-major whitening."""
    rng = np.random.default_rng(seed)

    def normal(*shape, scale):
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(scale)
        return values

    found, before = {"convolutions": []}, 3
    for block, number in NAMES:
        after = CHANNELS[block][number - 1]
        scale = (2 / (9 * before)) ** 0.5
        if before == 3:  # the images are -128..128
            scale /= 60
        kernel = normal(3, 3, before, after, scale=scale)
        found["convolutions"].append((kernel, normal(after, scale=0.3)))
        before = after
    # All features point towards the first channel, the last cluster away.
    found["convolutions"][-1][1][0] = 30
    centres = normal(CLUSTERS, 512, scale=512**-0.5)
    found["centres"] = centres
    found["assignment"] = 20 * centres.T
    found["assignment"][0, -1] = -30
    length = CLUSTERS * 512
    found["projection"] = normal(length, WHITENED, scale=10.0)
    found["bias"] = normal(WHITENED, scale=1.0)
    return found


def pictures(height=35, width=50):
    """Patches of colour: sizes that pooling does not divide."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (2, height // 5, width // 5, 3), np.uint8)
    return coarse.repeat(5, axis=1).repeat(5, axis=2)


def features(found, pixels, *, mean=RGB_MEAN, deviation=1.0):
    """conv5_3 before its ReLU, [B, h, w, 512], in float64."""
    x = (pixels - np.float64(mean)) / deviation
    before = NAMES[0]
    for name, (kernel, bias) in zip(NAMES, found["convolutions"], strict=True):
        if name != NAMES[0]:
            x = np.maximum(x, 0)
        if name[0] != before[0]:
            height, width = (size // 2 * 2 for size in x.shape[1:3])
            x = x[:, :height, :width]
            x = np.maximum(x[:, ::2], x[:, 1::2])
            x = np.maximum(x[:, :, ::2], x[:, :, 1::2])
        before = name
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        x = bias + sum(
            padded[:, row : row + height, column : column + width]
            @ np.float64(kernel[row, column])
            for row in range(3)
            for column in range(3)
        )
    return x


def descriptors(found, maps, *, pytorch, whitened, bias=0.0):
    """NetVLAD of feature maps, by its definition, location by location."""

    def unit(vector):
        if pytorch:
            return vector / max(np.linalg.norm(vector), 1e-12)
        return vector / np.sqrt(np.sum(vector**2) + 1e-12)

    rows = []
    for image in maps:
        residuals = np.zeros((CLUSTERS, 512))
        for location in image.reshape(-1, 512):
            x = unit(location)
            scores = x @ np.float64(found["assignment"]) + bias
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            for cluster in range(CLUSTERS):
                residuals[cluster] += weights[cluster] * (
                    x - found["centres"][cluster]
                )
        row = unit(np.concatenate([unit(part) for part in residuals]))
        if whitened:
            row = unit(row @ np.float64(found["projection"]) + found["bias"])
        rows.append(row)
    return np.stack(rows)


def torch_state(found, *, encoder, pool, whitening=None):
    """Arrays as PyTorch has them: kernels [out, in, 3, 3]."""
    state = {}
    for index, (kernel, bias) in zip(
        INDICES, found["convolutions"], strict=True
    ):
        state[f"{encoder}{index}.weight"] = kernel.transpose(3, 2, 0, 1)
        state[f"{encoder}{index}.bias"] = bias
    state[f"{pool}conv.weight"] = found["assignment"].T[:, :, None, None]
    state[f"{pool}centroids"] = found["centres"]
    if whitening:
        state[f"{whitening}weight"] = found["projection"].T[:, :, None, None]
        state[f"{whitening}bias"] = found["bias"]
    return state


def channel_major(found):
    """The projection for a descriptor in MATLAB's order, c * K + k."""
    order = [k * 512 + c for c in range(512) for k in range(CLUSTERS)]
    return found["projection"][order]


def matlab_layers(found, *, whitened=True):
    """(name, type, weights) of each layer of the MATLAB network."""
    layers = []
    for (block, number), (kernel, bias) in zip(
        NAMES, found["convolutions"], strict=True
    ):
        name = f"{block}_{number}"
        layers.append((f"conv{name}", "conv", [kernel, bias[None]]))
        if name == "5_3":
            break
        layers.append((f"relu{name}", "relu", None))
        if number == len(CHANNELS[block]):
            # Before its ReLU, as relja_swapLayersForEfficiency has it.
            layers.insert(-1, (f"pool{block}", "pool", None))
    layers += [
        ("preL2", "normalize", None),
        ("vlad:core", "custom", [found["assignment"], -found["centres"].T]),
        ("vlad:intranorm", "normalize", None),
        ("postL2", "custom", None),
    ]
    if whitened:
        kernel = channel_major(found)[None, None]
        layers += [
            ("WPCA", "conv", [kernel, found["bias"][None]]),
            ("finalL2", "custom", None),
        ]
    return layers


def average_image():
    return np.broadcast_to(np.float32(RGB_MEAN), (4, 5, 3))


def write_mat(path, layers):
    """As MATLAB's save -v7 writes it."""
    cells = np.empty((1, len(layers)), object)
    for index, (name, kind, weights) in enumerate(layers):
        layer = {"name": name, "type": kind}
        if weights is not None:
            layer["weights"] = np.empty((1, len(weights)), object)
            layer["weights"][0] = weights
        cells[0, index] = layer
    meta = {"normalization": {"averageImage": average_image()}}
    net = {"layers": cells, "meta": meta}
    scipy.io.savemat(path, {"net": net, "opts": {"K": 3}})


def write_mat_73(path, layers):
    """As MATLAB's save -v7.3 writes it: HDF5, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def put(group, name, array, kind="single"):
            group[name] = np.asarray(array).T
            group[name].attrs["MATLAB_class"] = np.bytes_(kind)
            return group[name]

        def text(group, name, value):
            codes = np.uint16([[ord(letter) for letter in value]])
            put(group, name, codes, "char")

        def cell(group, name, members):
            references = np.array(
                [[member.ref for member in members]], h5py.ref_dtype
            )
            put(group, name, references, "cell")

        hidden = file.create_group("#refs#")
        made = []
        for index, (name, kind, weights) in enumerate(layers):
            layer = hidden.create_group(f"layer{index}")
            layer.attrs["MATLAB_class"] = np.bytes_("struct")
            text(layer, "name", name)
            text(layer, "type", kind)
            if weights is not None:
                parts = [
                    put(hidden, f"weights{index}_{part}", array)
                    for part, array in enumerate(weights)
                ]
                cell(layer, "weights", parts)
            made.append(layer)
        net = file.create_group("net")
        cell(net, "layers", made)
        normalization = net.create_group("meta/normalization")
        put(normalization, "averageImage", average_image())
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def write_tensorflow(prefix, found):
    """As netvlad_tf_open's Saver writes it."""
    arrays = {"average_rgb": np.float32(RGB_MEAN)}
    for (block, number), (kernel, bias) in zip(
        NAMES, found["convolutions"], strict=True
    ):
        arrays[f"conv{block}_{number}/kernel"] = kernel
        arrays[f"conv{block}_{number}/bias"] = bias
    arrays["assignment/kernel"] = found["assignment"][None, None]
    arrays["cluster_centers"] = -found["centres"].T[None, None, None]
    arrays["WPCA/kernel"] = channel_major(found)[None, None]
    arrays["WPCA/bias"] = found["bias"]
    names = [f"vgg16_netvlad_pca/{name}" for name in arrays]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=len(names) * [""],
        tensors=list(arrays.values()),
    )
