"""Every flag of every stage, in one place.

All stages read the same flagfile, so all flags are defined together and no two
stages can disagree. Only `main` functions read them. In a flagfile a comment
stands on its own line and the last value of a flag wins.
"""

import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

# A stage says what it does; absl's own default shows warnings alone.
flags.FLAGS.set_default("verbosity", logging.INFO)

# As in sare_tf.losses, which is not imported here: it needs Keras.
TUPLE_LOSSES = (
    "sare_joint",
    "sare_independent",
    "triplet",
    "triplet_unsquared",
    "contrastive",
    "n_pair",
    "lifted_structure",
    "angular",
    "quadruplet",
)
PLACE_LOSSES = (
    "place_sare_joint",
    "place_sare_independent",
    "place_contrastive",
    "place_triplet_semihard",
    "place_triplet_hard",
    "place_lifted_structure",
    "place_n_pairs",
    "similarity_multi_similarity",
    "similarity_circle",
    "similarity_soft_nearest_neighbor",
    "similarity_pn",
    "similarity_triplet",
)


def start(
    main: Callable[[Sequence[str]], None], *, takes_files: bool = False
) -> None:
    """Runs a stage's `main`; wrong input ends in its message, exit code 1.

    The traceback is left out unless --verbosity=1: those messages are written
    for who runs the command.

    Args:
        main: takes the command line without its flags.
        takes_files: the command takes files beside its flags.
    """

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1 and not takes_files:
            raise app.UsageError(f"Expected flags alone. Received: {argv[1:]}.")
        try:
            main(argv)
        except (ImportError, OSError, ValueError) as error:
            logging.debug(traceback.format_exc())
            logging.error("%s", error)
            logging.info("--verbosity=1 shows where this was raised.")
            sys.exit(1)

    app.run(guarded)


def required(*names: str) -> None:
    """Refuses to go on without these flags.

    Raises:
        ValueError: one of them has no value.
    """
    missing = [name for name in names if flags.FLAGS[name].value is None]
    if missing:
        raise ValueError(
            "Expected --"
            + ", --".join(names)
            + ". Received no value for: --"
            + ", --".join(missing)
            + ". Give them on the command line or in the flagfile."
        )


def fractions(shares: Sequence[str]) -> list[float]:
    """The numbers of --split_fractions, which it is given.

    Raises:
        ValueError: they are none.
    """
    try:
        return [float(share) for share in shares]
    except ValueError as error:
        raise ValueError(
            f"Expected three numbers. Received: --split_fractions="
            f"{','.join(shares)}."
        ) from error


# The rendered city.
flags.DEFINE_string(
    "out",
    None,
    "Folder of the city that is rendered, of exported images or vectors, or of "
    "an imported network.",
)
flags.DEFINE_integer("places", 300, "Places of the city.", 1)

# Data.
flags.DEFINE_string("dataset", None, "Folder of raw images, in a known layout.")
flags.DEFINE_string(
    "reader",
    "at_names",
    "Layout of --dataset, see data/README.md: at_names, csv_table, "
    "exif_photos, google_landmarks, gsv_cities, holidays, msls, netvlad_mat, "
    "openibl, oxford_paris, patch_netvlad, place_folders, revisited, "
    "vpr_bench.",
)
flags.DEFINE_list(
    "split_fractions",
    ["0.6", "0.15", "0.25"],
    "Shares of places that become train, val and test, where the layout has "
    "no splits of its own.",
)
flags.DEFINE_float(
    "query_fraction",
    0.25,
    "Share of each place's images that become queries, where the layout of "
    "--dataset has no roles.",
)
flags.DEFINE_string(
    "utm_zone",
    "",
    "UTM zone of all images, such as 17T, where --dataset has latitudes and "
    "longitudes; empty: that of their median point.",
)
flags.DEFINE_string("records", None, "Folder of the built records.")
flags.DEFINE_string(
    "tuple_list",
    None,
    "List of training tuples, .parquet or .csv: build_records makes --tuples "
    "of it and --records, and reads no --dataset. Training leaves one in the "
    "folder of each epoch.",
)
flags.DEFINE_string(
    "tuples",
    None,
    "Folder of tuple records, which are trained on instead of mining. It may "
    "be remote, such as gs://bucket/folder.",
)
flags.DEFINE_enum(
    "layout",
    "at_names",
    ["at_names", "openibl", "hloc", "kapture", "msls", "numpy"]
    + ["parquet", "vertex"],
    "Layout that export_dataset (the first three) or export_vectors (the last "
    "six) writes to --out.",
)
flags.DEFINE_integer(
    "shard_mebibytes", 128, "Target size of one shard.", lower_bound=1
)
flags.DEFINE_integer(
    "num_workers", 0, "Threads that check images; 0: one per core.", 0
)
flags.DEFINE_enum(
    "check_of",
    "auto",
    ["auto", "dataset", "records"],
    "What check looks at; auto: --dataset where that folder is there, else "
    "--records.",
)
flags.DEFINE_bool(
    "check_images",
    True,
    "Read and decode every image when checking; without it, or where no image "
    "of a list is there, the list alone is checked.",
)
flags.DEFINE_string("findings", "findings", "Folder of what check finds.")
flags.DEFINE_string(
    "runner",
    None,
    "Runner of Apache Beam that builds records, or embeds images for the "
    "index, such as DirectRunner or FlinkRunner; Beam's own flags follow after "
    "--, see docs/beam.md. Default: without Beam, on this machine.",
)
flags.DEFINE_bool(
    "verify",
    False,
    "Instead of building records, read --records whole and compare them with "
    "what was built.",
)
flags.DEFINE_bool(
    "verify_images",
    True,
    "Decode each image when records are built, to refuse those that cannot be "
    "decoded; without it, only the size in their header is read.",
)
flags.DEFINE_integer(
    "resize_to",
    0,
    "Longer side, in pixels, that stored images have at most; larger ones are "
    "stored as smaller JPEGs, upright. 0: no limit.",
    0,
)
flags.DEFINE_integer(
    "reencode_quality",
    0,
    "JPEG quality, 1 to 100, to store every image anew with, upright; 0: files "
    "are stored as they are, and resized images with 95.",
    0,
    100,
)
flags.DEFINE_integer("image_height", 480, "Rows of a model input.", 16)
flags.DEFINE_integer("image_width", 640, "Columns of a model input.", 16)

# Which images show the same place.
flags.DEFINE_enum(
    "positives",
    "auto",
    ["auto", "radius", "place", "list"],
    "Positives by coordinates and radius, by place_id, or by the list of the "
    "dataset; auto: by its list if it has one, by coordinates where every "
    "image has them, and by place_id elsewhere.",
)
flags.DEFINE_float(
    "positive_radius_m", 25.0, "Right answers in evaluation, inclusive.", 0
)
flags.DEFINE_float(
    "train_positive_radius_m", 10.0, "Potential positives in training.", 0
)
flags.DEFINE_enum(
    "train_positives",
    "openibl",
    ["openibl", "netvlad"],
    "Potential positives in training: openibl, all within "
    "--train_positive_radius_m; netvlad, of these the ones farther than 1 m "
    "and, where the query has a time stamp, of another one.",
)

# Model.
flags.DEFINE_enum(
    "backbone",
    "vgg16",
    [
        "small",
        "vgg16",
        "resnet50",
        "mobilenetv3",
        "efficientnetv2b0",
        "torchvision_resnet18",
        "torchvision_resnet50",
        "torchvision_resnet101",
    ],
    "Convolutional network below the aggregation; small trains from scratch. "
    "torchvision_* have the weights of an imported checkpoint.",
)
flags.DEFINE_enum(
    "aggregation",
    "netvlad",
    ["netvlad", "gem", "mac", "spoc", "rmac"],
    "How the feature map becomes one descriptor.",
)
flags.DEFINE_integer("num_clusters", 64, "NetVLAD clusters.", 2)
flags.DEFINE_string(
    "weights",
    None,
    "Backbone weights to start from: imagenet, or a local .h5 / .keras file.",
)
flags.DEFINE_string(
    "cut_layer",
    None,
    "Layer of the backbone whose output is the feature map; default: its own.",
)
flags.DEFINE_string(
    "train_from",
    None,
    "First layer of the backbone that is trained, with all after it; "
    "aggregation: the backbone stays as it is; default: its own.",
)
flags.DEFINE_string(
    "netvlad_centres",
    None,
    "Centres for NetVLAD to start from, instead of k-means: a .mat file of the "
    "authors of NetVLAD, or .npy, [clusters, channels].",
)

# Weights of others.
flags.DEFINE_string(
    "source", None, "File of trained weights that import_weights reads."
)
flags.DEFINE_enum(
    "format",
    "auto",
    [
        "auto",
        "openibl",
        "pytorch_netvlad",
        "patch_netvlad",
        "benchmark",
        "netvlad_mat",
        "netvlad_tf",
        "keras",
    ],
    "Whose --source it is; auto: told by its content.",
)
flags.DEFINE_string(
    "pca", None, "PCA beside a training of OpenIBL, pca_params_*.h5."
)

# Training.
flags.DEFINE_string("checkpoints", None, "Folder of the training checkpoints.")
flags.DEFINE_enum(
    "loss",
    "sare_joint",
    [*TUPLE_LOSSES, *PLACE_LOSSES],
    "Over mined tuples, or over batches of places (place_*; similarity_* needs "
    "the extra similarity). --kernel and --inverse_bandwidth are SARE's alone.",
)
flags.DEFINE_float(
    "margin",
    None,
    "Margin of triplet, triplet_unsquared, contrastive, lifted_structure or "
    "quadruplet; without it the one of the paper.",
)
flags.DEFINE_enum(
    "kernel",
    "gaussian",
    ["gaussian", "cauchy", "exponential"],
    "Kernel that turns a distance into a similarity.",
)
flags.DEFINE_float(
    "inverse_bandwidth",
    1.0,
    "Factor on squared distances in the loss; 1 is the paper's. Training from "
    "scratch needs more.",
    0,
)
flags.DEFINE_integer("epochs", 30, "Passes over the training queries.", 0)
flags.DEFINE_integer(
    "patience", 10, "Epochs without a better validation recall@5; 0: no stop."
)
flags.DEFINE_integer("tuples_per_batch", 4, "Tuples of one step, globally.", 1)
flags.DEFINE_integer("num_negatives", 10, "Negatives of a tuple.", 1)
flags.DEFINE_integer(
    "negative_pool",
    1000,
    "Random negatives of a query among which the hardest are looked for; 0: "
    "the whole database, which takes no longer, but is not the paper's rule.",
    0,
)
flags.DEFINE_integer(
    "queries_per_epoch", 0, "Training queries of one epoch; 0: all.", 0
)
flags.DEFINE_integer(
    "refresh_every_queries",
    1000,
    "Training queries after which descriptors are computed again for mining; "
    "twice as many each time the rate is halved. 0: once per epoch.",
    0,
)
flags.DEFINE_enum(
    "cache_dtype",
    "float32",
    ["float32", "float16"],
    "Type of the descriptors held in memory in training.",
)
flags.DEFINE_integer(
    "val_queries", 1000, "Validation queries, drawn by --seed; 0: all.", 0
)
flags.DEFINE_integer(
    "places_per_batch", 16, "Places of one step, with a loss over places.", 2
)
flags.DEFINE_integer("images_per_place", 4, "Images of a place in a step.", 2)
flags.DEFINE_integer(
    "hardest_negatives",
    0,
    "Images of other places that repel an image, the most similar of the "
    "batch; 0: all. For place_sare_joint and place_sare_independent.",
    0,
)
flags.DEFINE_integer(
    "memory_images",
    0,
    "Images of earlier batches whose descriptors take part in a step, as they "
    "were; 0: none. For place_sare_joint and place_sare_independent.",
    0,
)
flags.DEFINE_integer(
    "memory_after_steps",
    1000,
    "Steps after which --memory_images take part: at first descriptors change "
    "too fast.",
    0,
)
flags.DEFINE_integer(
    "chunk_images",
    0,
    "Images of a replica that are propagated at a time, with a loss over "
    "places: for batches larger than memory, in more time. 0: all at once.",
    0,
)
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored", "multi_worker"],
    "Train on one device; on all GPUs of this machine; or on all machines of "
    "TF_CONFIG. Batches are those of all replicas together.",
)
flags.DEFINE_enum(
    "optimizer",
    "sgd",
    ["sgd", "adam"],
    "Update rule: SGD with momentum as the original code has it, or AdamW.",
)
flags.DEFINE_float(
    "learning_rate",
    0.001,
    "For the mean over tuples. The original code divides the gradient of every "
    "loss by the number of negatives: to follow one of its rates, divide it by "
    "--num_negatives for contrastive, n_pair, lifted_structure and angular, "
    "and for sare_joint unless --joint_scaling=negatives. With "
    "--optimizer=adam the scale does not matter.",
    0,
)
flags.DEFINE_enum(
    "joint_scaling",
    "tuples",
    ["tuples", "negatives"],
    "sare_joint as the mean over tuples, or divided by --num_negatives, as the "
    "original code does; see --learning_rate.",
)
flags.DEFINE_enum(
    "schedule",
    "halving",
    ["halving", "cosine"],
    "The rate over the run: halved every --halve_every epochs, or along a "
    "cosine down to 0 at the end of --epochs.",
)
flags.DEFINE_integer("halve_every", 5, "Epochs until the rate is halved.", 0)
flags.DEFINE_integer(
    "warmup_epochs", 0, "Epochs in which the rate first rises from 0.", 0
)
flags.DEFINE_float("weight_decay", 0.001, "Decay of all trained weights.", 0)
flags.DEFINE_float(
    "averaging_momentum",
    0.0,
    "Momentum of an average of the weights over the steps, such as 0.999; the "
    "average is then what is validated and exported. 0: none.",
    0,
    1,
)
flags.DEFINE_list(
    "augment",
    [],
    "How images are varied in training: any of crop (and zoom), perspective, "
    "colour, grey and erase, such as crop,colour.",
)
flags.DEFINE_bool(
    "augment_same",
    False,
    "Vary all images of a tuple, or of a place, alike, not each by itself.",
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16"],
    "Numbers of the convolutions in training; descriptors, losses, weights and "
    "exported models are float32 in any case.",
)
flags.DEFINE_bool(
    "jit_compile",
    None,
    "Compile the step with XLA, on one device; by default Keras decides.",
)
flags.DEFINE_integer(
    "max_bad_images",
    10,
    "Images that a run leaves out, with a warning, if their records become "
    "unreadable; with more it stops.",
    0,
)
flags.DEFINE_bool(
    "dry_run",
    False,
    "Show what train would do, its steps, parameters and memory; write "
    "nothing.",
)
flags.DEFINE_bool(
    "profile",
    False,
    "Write a profile of some steps of the first epoch that is trained. To see "
    "it, TensorBoard needs the package tensorboard-plugin-profile.",
)
flags.DEFINE_integer("seed", 0, "Of everything random.")

# Export.
flags.DEFINE_string("export", None, "Folder of the exported SavedModel.")
flags.DEFINE_integer(
    "whitening_dimension",
    0,
    "Length of whitened descriptors, 4096 in the paper; 0: no whitening. A "
    "smaller one gives the first numbers of a larger one, normalised again. "
    "import_weights without it keeps the whitening of its source.",
    0,
)
flags.DEFINE_integer(
    "whitening_samples",
    10_000,
    "Database images of the train split that whitening is fitted to; more "
    "than --whitening_dimension.",
    2,
)
flags.DEFINE_integer(
    "truncate_dimension",
    0,
    "Keep so many of a descriptor's first numbers, after whitening, and "
    "normalise again; 0: all. Without whitening only for a network that was "
    "trained to put most into the first ones.",
    0,
)
flags.DEFINE_bool(
    "allow_other_records",
    False,
    "Fit whitening to --records that were not trained on.",
)
flags.DEFINE_list(
    "scales",
    ["1"],
    "Sizes at which an exported model embeds an image, relative to its input, "
    "such as 1,0.7071,0.5; their descriptors are averaged.",
)
flags.DEFINE_string(
    "model_licence", None, "Licence of the exported model, for its card."
)

# A model on a TF Serving.
flags.DEFINE_string(
    "server",
    None,
    "TF Serving that embeds images for index, evaluate and locate, instead of "
    "--export: grpc://host:8500, http://host:8501, with TLS grpcs:// or "
    "https://; for a model that is not named sare_tf, or one version of it, "
    "with /v1/models/NAME, /versions/N or /labels/LABEL after it. If --export "
    "is there, too, its model must be the same.",
)
flags.DEFINE_string(
    "server_root_certificates",
    None,
    "PEM file of the certificates that --server is trusted by; default: the "
    "usual ones.",
)
flags.DEFINE_string(
    "server_certificate",
    None,
    "PEM file of a certificate to show to --server, if it asks for one.",
)
flags.DEFINE_string(
    "server_private_key", None, "PEM file, the key of --server_certificate."
)
flags.DEFINE_integer(
    "server_images_per_request",
    8,
    "Images of a request to --server; at most its max_batch_size.",
    1,
)
flags.DEFINE_integer(
    "server_requests_in_flight",
    4,
    "Requests to --server at a time. They share a batch of --batch_size.",
    1,
)
flags.DEFINE_float(
    "server_request_timeout_s", 60.0, "Time for a request to --server.", 0
)
flags.DEFINE_float(
    "server_timeout_s",
    300.0,
    "Time for a batch of --batch_size, with all attempts.",
    0,
)

# Embedding, index, evaluation.
flags.DEFINE_string(
    "index",
    None,
    "Folder of the index. To search, also a folder of such folders, or several "
    "separated by commas.",
)
flags.DEFINE_string(
    "index_shard",
    "0/1",
    "Part of the database to index, such as 0/8, 1/8 and so on to 7/8, each "
    "into its own --index, on its own machine; --index is then the folder of "
    "all to search.",
)
flags.DEFINE_enum(
    "index_dtype",
    "float32",
    ["float32", "float16"],
    "Type of the descriptors on disk.",
)
flags.DEFINE_float(
    "target_recall",
    0.0,
    "If above 0, ScaNN is tuned to find this share of the 10 nearest images, "
    "as fast as it can; 0: by rules.",
    0,
    1,
)
flags.DEFINE_bool(
    "tune_tree",
    False,
    "With --target_recall, build three to seven trees, without SOAR, of "
    "coarser codes and of more leaves, and keep the fastest.",
)
flags.DEFINE_string(
    "add_records",
    None,
    "Records whose database images of --split are added to --index.",
)
flags.DEFINE_string(
    "remove_ids",
    None,
    "Text file of image ids, one a line, that are removed from --index.",
)
flags.DEFINE_bool(
    "compact",
    False,
    "Rebuild --index from its descriptors, without what was removed.",
)
flags.DEFINE_string("evaluation", None, "Folder of metrics and report.")
flags.DEFINE_string("split", "test", "Split to index and evaluate.")
flags.DEFINE_string(
    "protocol",
    "auto",
    "What is evaluated: a name in sare_tf.protocols, such as pitts30k or msls; "
    "auto: the one that --positives names.",
)
flags.DEFINE_integer(
    "positive_frames", 10, "Right answers of the protocol frames, inclusive.", 0
)
flags.DEFINE_float(
    "positive_heading_deg",
    0.0,
    "If above 0, right answers look at most this many degrees away from where "
    "the query looks; for the protocols radius and msls.",
    0,
    180,
)
flags.DEFINE_enum(
    "msls_subtask",
    "all",
    ["all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"],
    "Subtask of the protocol msls: summer, winter, old, new, day, night.",
)
flags.DEFINE_list("recall_at", ["1", "5", "10", "20"], "N of recall@N.")
flags.DEFINE_integer("batch_size", 32, "Images embedded at a time.", 1)
flags.DEFINE_bool("exact_search", False, "Search exactly, without ScaNN.")
flags.DEFINE_integer(
    "k", 5, "Matches to find for a photograph, or neighbours to export.", 1
)
flags.DEFINE_bool(
    "json", False, "Print what is located as JSON, one object per photograph."
)
flags.DEFINE_string(
    "picture",
    None,
    "PNG file that locate draws photographs and their matches in; needs "
    "--records.",
)
flags.DEFINE_bool(
    "serve",
    False,
    "Open a web page that locates what is dropped on it; needs --records and "
    "the extra web.",
)
flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Address that --serve listens at; other than this machine's own ones, "
    "whoever reaches it sees the database's images.",
)
flags.DEFINE_integer("port", 8008, "Port of --serve; 0: any.", 0, 65535)
flags.DEFINE_integer(
    "upload_mebibytes", 20, "Size of a photograph sent to --serve, at most.", 1
)
flags.DEFINE_string(
    "comparison", "comparison", "Folder of a comparison of evaluations."
)
