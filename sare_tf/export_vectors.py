"""index/ + the queries of records/ -> descriptors and matches for others.

    python -m sare_tf.export_vectors --flagfile=sare_tf:demo \
        --layout=hloc --out=runs/demo/hloc

Layouts:

    hloc      global-feats.h5, an array `global_descriptor` of each image by
              its name, and pairs.txt, `query database` a line, for hloc's
              matching; names are those of export_dataset --layout=hloc
    kapture   reconstruction/global_features/, sensors/, pairs.txt
    msls      submission.csv, a line per query of its key and those of its
              matches, as Mapillary SLS takes it; zip it for CodaLab
    numpy     {database,queries}.npy [N, D] with {database,queries}.csv, and
              matches.csv
    parquet   {database,queries}.parquet: image_id, vector and the rest of the
              manifest; Milvus imports such files
    vertex    database/*.json, a directory that Vertex AI Vector Search builds
              an index from (DOT_PRODUCT_DISTANCE); queries.json beside it

docs/vectors.md shows how each is read. Descriptors have length 1, so products,
cosines and distances give the same ranking. Matches are the --k nearest by
exact search. If a split has no queries, only the database is written. Memory
does not grow with the database, except for hloc's list of names.

Sources: github.com/cvg/Hierarchical-Localization, pairs_from_retrieval.py;
github.com/naver/kapture, kapture_format.adoc 1.1; github.com/mapillary/
mapillary_sls; cloud.google.com/vertex-ai/docs/vector-search, "Input data format
and structure"; milvus.io/docs, "Prepare Source Data".
"""

from pathlib import Path

import pandas as pd
from absl import logging

from sare_tf import flags, serving
from sare_tf.dataset import names
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files, run_lock, stage_results
from sare_tf.search import embedding, exact_search, vector_layouts
from sare_tf.search.opened_index import Index
from sare_tf.search.options import VectorOptions


@run_lock.one_at_a_time("out")
def run(options: VectorOptions) -> Path:
    """Writes descriptors of a split's database and queries, and the matches.

    Args:
        options: the index of that split, or shards of it; the records and the
            export that it was built from; the new folder and its layout.

    Returns:
        The new folder.

    Raises:
        FileNotFoundError: an input is absent.
        ValueError: a folder that exists, inputs that do not belong together, or
            names that the layout cannot hold.
    """
    out = Path(options.out)
    atomic_files.check_new(out)
    index = Index.open(options.index_paths, exact=True)
    servable = serving.load(serving.named(options))
    index.check_export(servable)
    records = Records(options.records)
    rows = _queries(records, options.split)
    descriptors = embedding.embed(
        servable,
        records.read_images(rows),
        rows["image_id"].tolist(),
        batch_size=options.batch_size,
    )
    k = min(options.k, len(index.manifest))
    neighbours, distances = exact_search.nearest(
        descriptors, index.descriptors, k
    )
    matches = vector_layouts.Matches(
        queries=vector_layouts.Side(
            "queries", rows.reset_index(drop=True), descriptors
        ),
        database=vector_layouts.Side(
            "database", index.manifest, index.descriptors
        ),
        rows=neighbours,
        distances=distances,
    )
    with atomic_files.folder_in_one_piece(out) as folder:
        vector_layouts.write(options.layout, folder, matches)
    stage_results.report(
        "export_vectors",
        f"{len(index.manifest)} database images and {len(rows)} queries with "
        f"{k} matches each as {options.layout} in {out}.",
        path=out,
        layout=options.layout,
        database=len(index.manifest),
        queries=len(rows),
        matches=k,
    )
    return out


def _queries(records: Records, split: str) -> pd.DataFrame:
    """Returns the rows of the queries of a split, which may have none.

    Raises:
        ValueError: there is no such split.
    """
    database = records.rows(split, "database")
    in_split = records.manifest["split"].isin(names.splits_of(split))
    if not (in_split & (records.manifest["role"] == "query")).any():
        logging.warning("No queries: only the database is written.")
        return database[:0]
    return records.rows(split, "query")


def main(argv) -> None:
    del argv
    run(VectorOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
