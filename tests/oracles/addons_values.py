"""Values and gradients that TensorFlow Addons computes, for tests of ours.

    make oracles

runs this in an environment of its own (requirements.txt beside it), as
TensorFlow Addons cannot be imported beside the TensorFlow of this project. It
writes tensorflow_addons.npz, which is kept with the tests:

    cases             JSON: a list of {"batch", "loss", "settings"}
    labels/<batch>    int32 [B]
    descriptors/<batch>   float32 [B, D]
    value/<case>      float32 [], the scalar of the loss
    gradient/<case>   float32 [B, D], its gradient
    netvlad/...       input [B, L, D] of unit length, weights, output

where a case is its position in the list.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa
from tensorflow_addons.layers.netvlad import NetVLAD

OUT = Path(__file__).with_name("tensorflow_addons.npz")

# Labels, descriptor length, whether descriptors have unit length.
BATCHES = {
    "balanced": ([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 8, True),
    "unbalanced": ([5, 5, 5, 5, 2, 2, 9, 7, 7], 4, True),
    "crowded": ([0, 1, 2, 3, 4, 5, 6, 7] * 2, 3, True),
    "any_length": ([1, 1, 2, 2, 2, 3, 3, 4, 4, 4], 5, False),
}
LOSSES = [
    ("contrastive", {}),
    ("contrastive", {"margin": 0.6}),
    ("triplet_semihard", {}),
    ("triplet_semihard", {"margin": 0.2}),
    ("triplet_semihard", {"squared": True}),
    ("triplet_hard", {}),
    ("triplet_hard", {"margin": 0.2}),
    ("triplet_hard", {"squared": True}),
    ("triplet_hard", {"soft": True}),
    ("lifted_structure", {}),
    ("lifted_structure", {"margin": 0.3}),
    ("n_pairs", {}),
]


def computed(loss, labels, descriptors, *, margin=1.0, squared=False, **more):
    metric = "squared-L2" if squared else "L2"
    if loss == "contrastive":
        first, second = np.triu_indices(len(labels), 1)
        apart = tf.norm(
            tf.gather(descriptors, first) - tf.gather(descriptors, second),
            axis=1,
        )
        same = (labels[first] == labels[second]).astype(np.float32)
        return tfa.losses.ContrastiveLoss(margin=margin)(same, apart)
    if loss == "triplet_semihard":
        return tfa.losses.TripletSemiHardLoss(margin, metric)(
            labels, descriptors
        )
    if loss == "triplet_hard":
        return tfa.losses.TripletHardLoss(
            margin, distance_metric=metric, **more
        )(labels, descriptors)
    if loss == "lifted_structure":
        return tfa.losses.LiftedStructLoss(margin)(labels, descriptors)
    products = tf.matmul(descriptors, descriptors, transpose_b=True)
    return tfa.losses.NpairsLoss()(labels, products)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def main():
    rng = np.random.default_rng(20240415)
    stored = {}
    for batch, (labels, length, has_unit_length) in BATCHES.items():
        x = rng.normal(size=(len(labels), length))
        x = unit(x) if has_unit_length else 0.6 * x
        stored[f"labels/{batch}"] = np.array(labels, np.int32)
        stored[f"descriptors/{batch}"] = x.astype(np.float32)
    cases = []
    for batch, (loss, settings) in itertools.product(BATCHES, LOSSES):
        descriptors = tf.constant(stored[f"descriptors/{batch}"])
        labels = stored[f"labels/{batch}"]
        with tf.GradientTape() as tape:
            tape.watch(descriptors)
            value = computed(loss, labels, descriptors, **settings)
        gradient = tf.convert_to_tensor(tape.gradient(value, descriptors))
        stored[f"value/{len(cases)}"] = value.numpy()
        stored[f"gradient/{len(cases)}"] = gradient.numpy()
        cases.append({"batch": batch, "loss": loss, "settings": settings})
    stored["cases"] = np.array(json.dumps(cases))

    frames = unit(rng.normal(size=(2, 20, 6))).astype(np.float32)
    layer = NetVLAD(num_clusters=3)
    layer(frames)
    assignment = rng.normal(size=(6, 3)).astype(np.float32) * 4
    centres = rng.normal(size=(1, 6, 3)).astype(np.float32) / 3
    layer.fc.set_weights([assignment, np.zeros(3, np.float32)])
    layer.cluster_centers.assign(centres)
    stored["netvlad/frames"] = frames
    stored["netvlad/assignment"] = assignment
    stored["netvlad/centres"] = centres
    stored["netvlad/output"] = layer(frames).numpy()
    np.savez(OUT, **stored)


if __name__ == "__main__":
    main()
