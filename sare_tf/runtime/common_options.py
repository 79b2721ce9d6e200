"""Options that many stages have in common."""

from sare_tf.runtime.options import Options, option, options, path_option


@options
class SeedOptions(Options):
    """The seed."""

    seed: int = option(0, "Seed of everything random.")


@options
class BatchOptions(Options):
    """The size of a batch of images."""

    batch_size: int = option(32, "Images embedded at a time.", minimum=1)


@options
class WorkerOptions(Options):
    """The number of threads or processes."""

    num_workers: int = option(
        0,
        "Threads that check images, or processes that render the city; 0: one "
        "per core.",
        minimum=0,
    )


@options
class OutputOptions(Options):
    """What a command prints."""

    json: bool = option(
        False,
        "Print each result as one JSON object on one line, see "
        "docs/output.md. locate prints one for each photograph.",
    )
    quiet: bool = option(
        False, "Print only results, warnings and errors, and no bars."
    )


@options
class OutOptions(Options):
    """The output of stages that have no folder flag of their own."""

    out: str | None = path_option(
        None,
        "What synthetic_city, import_weights, export_weights, export_onnx, "
        "export_dataset, export_vectors and export_local_features write.",
    )


@options
class LocalFeatureOptions(Options):
    """The local features of an image."""

    local_count: int = option(
        1000,
        "Local features of an image, of RootSIFT or of an export that "
        "export_local_features writes.",
        minimum=8,
    )
    local_side: int = option(
        640,
        "Pixels of the longer side to which an image is reduced for its local "
        "features.",
        minimum=32,
    )


@options
class RunnerOptions(Options):
    """The runner of Beam that does the work of a stage."""

    runner: str | None = option(
        None,
        "Runner of Apache Beam that builds records, or embeds images for the "
        "index, such as DirectRunner or FlinkRunner; Beam's own flags follow "
        "after --, see docs/beam.md. Default: this machine, without Beam.",
    )
    beam_flags: tuple[str, ...] = option(
        (), "Flags of Beam, for --runner.", has_flag=False
    )

    def __post_init__(self):
        super().__post_init__()
        if self.beam_flags and not self.runner:
            raise ValueError(
                "Expected only flags without --runner. Received: "
                f"{list(self.beam_flags)}."
            )


@options
class ImageSizeOptions(Options):
    """The size of the network's input."""

    image_height: int = option(480, "Rows of a model input.", minimum=16)
    image_width: int = option(640, "Columns of a model input.", minimum=16)


@options
class WeightsOptions(Options):
    """The weights of a network."""

    weights: str | None = path_option(
        None,
        "File of a network's weights, or a name whose file is "
        "downloaded from where its authors host it, such as mobilenet_v2, "
        "torchvision_resnet50 or dinov2_vits14. train, whose backbone starts "
        "from them: a file of Keras (.h5, .keras), PyTorch (.pth), safetensors "
        "or NumPy (.npz), or imagenet for a network of Keras; default: random "
        "weights. locate --photos: also a file that import_weights reads; "
        "default: mobilenet_v2.",
    )
