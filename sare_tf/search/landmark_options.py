"""Options of what landmark retrieval does with the neighbours of images."""

from sare_tf.runtime.options import Options, option, options

# Values of --rerank that look at neighbours, not at local features.
RERANKERS = ("k_reciprocal", "diffusion", "offline_diffusion")
# Files beside an index: the neighbours of its images.
GRAPH = "neighbours.json"
GRAPH_ROWS = "neighbours_rows.npy"
GRAPH_SIMILARITIES = "neighbours_similarities.npy"
# Files beside an index: what diffusion from each of its images gives others.
DIFFUSION = "diffusion.json"
DIFFUSION_ROWS = "diffusion_rows.npy"
DIFFUSION_SCORES = "diffusion_scores.npy"


@options
class ExpansionOptions(Options):
    """How a descriptor is expanded by its neighbours."""

    expand_alpha: float = option(
        3.0,
        "Power of the cosine by which --expand_queries and --augment_database "
        "weight neighbours (alpha query expansion); 0: all the same (average "
        "query expansion).",
        minimum=0,
    )


@options
class DiffusionOptions(Options):
    """The matrix of diffusion."""

    graph_neighbours: int = option(
        50,
        "Neighbours of an image in the graph of diffusion. A stored graph may "
        "have more.",
        minimum=1,
    )
    diffusion_gamma: float = option(
        3.0, "Power of the cosine as a weight of the graph.", minimum=0
    )
    diffusion_alpha: float = option(
        0.99,
        "Share of a score that comes from neighbours, below 1.",
        minimum=0,
        maximum=0.999999,
    )


@options
class StoredNeighbourOptions(ExpansionOptions, DiffusionOptions):
    """What an index holds of the neighbours of its images."""

    augment_database: int = option(
        0,
        "If above 0, add so many nearest images to the descriptor of each "
        "image of the index (database augmentation).",
        minimum=0,
    )
    neighbour_graph: int = option(
        0,
        "If above 0, store so many nearest images of each image beside "
        "--index, such as 50, for --rerank=diffusion and k_reciprocal.",
        minimum=0,
    )
    offline_diffusion: int = option(
        0,
        "If above 0, store what diffusion from each image of the index gives "
        "so many nearest images, such as 1000, beside --index, for "
        "--rerank=offline_diffusion: a query then only adds it up.",
        minimum=0,
    )


@options
class LandmarkOptions(ExpansionOptions, DiffusionOptions):
    """What is done with the neighbours of queries."""

    expand_queries: int = option(
        0,
        "If above 0, add so many nearest images to the descriptor of each "
        "query, such as 10, and search again (query expansion).",
        minimum=0,
    )
    diffusion_start: int = option(
        10, "Nearest images from which diffusion starts.", minimum=1
    )
    reciprocal_k1: int = option(
        20, "Neighbours that k_reciprocal takes for reciprocal.", minimum=2
    )
    reciprocal_k2: int = option(
        6, "Neighbours over which k_reciprocal averages.", minimum=1
    )
    reciprocal_lambda: float = option(
        0.3,
        "Share of the distance of descriptors in that of k_reciprocal.",
        minimum=0,
        maximum=1,
    )
