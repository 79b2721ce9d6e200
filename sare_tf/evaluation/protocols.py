"""Evaluation protocols by name: which images are right, and how they count.

One dataset's name stands for several protocols in the literature: Nordland for
four, Tokyo 24/7 for two. A `Protocol` holds what distinguishes them. `describe`
puts it into words, made from the fields that `ground_truth` computes with.
"""

import dataclasses

from sare_tf.dataset.names import SUBTASKS

# How many times N neighbours NetVLAD's evaluation searches for: cut-outs of a
# panorama of Tokyo 24/7 (dbTokyo247.m), and images of the same time stamp in
# Tokyo Time Machine (dbTokyoTimeMachine.m).
PANORAMA_CUTOUTS = 12
TIMESTAMP_DEPTH = 10
# Protocols that may leave out images of the query's sequence.
_LEAVE_SEQUENCES_OPEN = ("radius", "place", "list")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """An evaluation protocol.

    Attributes:
        name: its name.
        used_by: the papers and programs whose numbers are comparable.
        rule: how positives are found: "radius", "place", "frames" or "list".
        radius_m: for the rule radius, metres to a positive, inclusive.
        heading_deg: for the rule radius; if above 0, the heading of a positive
            also differs by at most this many degrees from the query's.
        frames: for the rule frames, frames to a positive, inclusive.
        right: for the rule list, relations that make a positive.
        junk: relations of images that are taken out of the ranking.
        leaves_out: whether queries without a positive are left out; else they
            count as misses.
        one_per_panorama: whether only a panorama's first image is ranked.
        other_timestamp: whether images of the query's timestamp are taken out.
        other_sequence: whether images of the query's sequence are taken out.
        every: only every so-many-th frame is a query.
        subtask: queries and database are the images of this subtask.
        full_ranking: whether average precision of the full ranking and mP@k
            are measured, too.
        mean_average_precision_at: values of N for which mAP@N is measured.
        sequences: "seq2seq", "seq2im" or "im2seq" if queries, images of the
            database, or both are sequences, as Mapillary SLS defines them.
        sequence_length: images of such a sequence.
    """

    name: str
    used_by: str
    rule: str = "radius"
    radius_m: float = 25.0
    heading_deg: float = 0.0
    frames: int = 0
    right: tuple[str, ...] = ("positive", "easy", "hard")
    junk: tuple[str, ...] = ("junk",)
    leaves_out: bool = False
    one_per_panorama: bool = False
    other_timestamp: bool = False
    other_sequence: bool = False
    every: int = 1
    subtask: str = ""
    full_ranking: bool = False
    mean_average_precision_at: tuple[int, ...] = ()
    sequences: str = ""
    sequence_length: int = 1


def _msls(task: str) -> Protocol:
    """The protocol of MSLS for images, or for sequences of 3 images."""
    return Protocol(
        name=f"msls_{task}" if task else "msls",
        used_by="mapillary_sls"
        if task
        else "mapillary_sls, GSV-Cities, SALAD, OpenVPRLab (740 of the "
        "747 validation queries)",
        leaves_out=True,
        subtask="all",
        mean_average_precision_at=(1, 5, 10, 20),
        sequences=task,
        sequence_length=3 if task else 1,
    )


def _revisited(dataset: str, used_by: str) -> list[Protocol]:
    levels = {
        "easy": (("easy",), ("junk", "hard")),
        "medium": (("easy", "hard"), ("junk",)),
        "hard": (("hard",), ("junk", "easy")),
    }
    return [
        Protocol(
            name=f"{dataset}_{level}",
            used_by=used_by,
            rule="list",
            right=right,
            junk=junk,
            leaves_out=True,
            full_ranking=True,
        )
        for level, (right, junk) in levels.items()
    ]


def _original(dataset: str) -> Protocol:
    return Protocol(
        name=dataset,
        used_by="Philbin et al. 2007 and 2008, NetVLAD, SARE, "
        "cnnimageretrieval (good and ok images are positives)",
        rule="list",
        right=("positive",),
        leaves_out=True,
        full_ranking=True,
    )


_PITTSBURGH = "NetVLAD, SARE, OpenIBL, deep-visual-geo-localization-benchmark"
_REVISITED_BY = "Radenovic et al. 2018, cnnimageretrieval, DELF"
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="radius", used_by="any dataset with coordinates"),
        Protocol(
            name="place",
            used_by="any dataset with places, such as GSV-Cities",
            rule="place",
        ),
        Protocol(
            name="frames",
            used_by="any pair of drives aligned frame by frame",
            rule="frames",
        ),
        Protocol(
            name="list",
            used_by="any dataset with listed pairs, such as VPR-Bench",
            rule="list",
        ),
        Protocol(name="pitts30k", used_by=_PITTSBURGH),
        Protocol(name="pitts250k", used_by=_PITTSBURGH),
        Protocol(
            name="tokyo247",
            used_by="NetVLAD, SARE, Patch-NetVLAD; OpenIBL takes the images of "
            "one folder for one panorama, which differs for 78 of 6,332",
            one_per_panorama=True,
        ),
        Protocol(
            name="tokyo247_no_suppression",
            used_by="deep-visual-geo-localization-benchmark, "
            "VPR-methods-evaluation",
        ),
        Protocol(name="tokyotm", used_by="NetVLAD, SARE", other_timestamp=True),
        *map(_msls, ("", "seq2seq", "seq2im", "im2seq")),
        Protocol(
            name="nordland",
            used_by="deep-visual-geo-localization-benchmark, "
            "VPR-methods-evaluation, BoQ (Nordland**)",
            rule="frames",
            frames=10,
        ),
        Protocol(
            name="nordland_vprbench",
            used_by="VPR-Bench, GSV-Cities, SALAD, BoQ (Nordland*)",
            rule="frames",
            frames=1,
            every=10,
        ),
        Protocol(
            name="nordland_patchnetvlad",
            used_by="the ground truth file of Patch-NetVLAD, whose 10 on "
            "(frame, frame) as coordinates is 7 frames",
            rule="frames",
            frames=7,
        ),
        Protocol(
            name="nordland_selavpr", used_by="SelaVPR", rule="frames", frames=2
        ),
        *_revisited("roxford5k", _REVISITED_BY),
        *_revisited("rparis6k", _REVISITED_BY),
        _original("oxford5k"),
        _original("paris6k"),
        Protocol(
            name="holidays",
            used_by="Jegou et al. 2008, NetVLAD, SARE (the query itself is "
            "listed as junk)",
            rule="list",
            leaves_out=True,
            full_ranking=True,
        ),
        Protocol(
            name="gldv2",
            used_by="Google Landmarks v2 retrieval (mAP@100)",
            rule="list",
            leaves_out=True,
            mean_average_precision_at=(100,),
        ),
    )
}


def choose(
    name: str,
    *,
    radius_m: float = 25.0,
    frames: int = 10,
    heading_deg: float = 0.0,
    subtask: str = "all",
    sequence_length: int = 1,
    other_sequence: bool = False,
) -> Protocol:
    """Returns a protocol by name, with the numbers that it leaves open.

    Args:
        name: a key of `PROTOCOLS`.
        radius_m: metres to a positive, for "radius".
        frames: frames to a positive, for "frames".
        heading_deg: if above 0, the heading of a positive differs by at most
            this many degrees from the query's; for "radius" and "msls".
        subtask: subtask of Mapillary SLS, for "msls" and its sequences.
        sequence_length: for protocols of sequences, images of one; 1: as many
            as the protocol names.
        other_sequence: whether images of the query's sequence are taken out of
            its ranking; for "radius", "place" and "list".

    Raises:
        ValueError: no such protocol, or a number that the protocol fixes.
    """
    if name not in PROTOCOLS:
        raise ValueError(
            f"Expected a protocol: {', '.join(PROTOCOLS)}. Received: "
            f"protocol={name!r}."
        )
    protocol = PROTOCOLS[name]
    given = {}
    if name == "radius":
        given["radius_m"] = radius_m
    elif protocol.rule == "radius" and radius_m != protocol.radius_m:
        raise ValueError(
            f"Expected positive_radius_m={protocol.radius_m:g}, which the "
            f"protocol {name} fixes. Received: positive_radius_m={radius_m:g}. "
            "Use --protocol=radius for another."
        )
    if name == "frames":
        given["frames"] = frames
    if heading_deg:
        if name not in ("radius", "msls") or protocol.sequences:
            raise ValueError(
                "Expected the protocol radius or msls for positives by "
                f"heading. Received: protocol={name!r}, "
                f"positive_heading_deg={heading_deg:g}. Set it to 0."
            )
        given["heading_deg"] = heading_deg
    if subtask not in SUBTASKS:
        raise ValueError(
            f"Expected a subtask: {', '.join(SUBTASKS)}. Received: "
            f"subtask={subtask!r}."
        )
    if protocol.subtask:
        given["subtask"] = subtask
    elif subtask != "all":
        raise ValueError(
            "Expected the protocol msls for a subtask. Received: "
            f"protocol={name!r}, subtask={subtask!r}."
        )
    if other_sequence:
        if name not in _LEAVE_SEQUENCES_OPEN:
            raise ValueError(
                "Expected the protocol "
                f"{', '.join(_LEAVE_SEQUENCES_OPEN)} to leave out images of "
                f"the query's own sequence. Received: protocol={name!r}, "
                "other_sequence=True. Leave out --other_sequence."
            )
        given["other_sequence"] = True
    if protocol.sequences and sequence_length > 1:
        if sequence_length % 2 == 0:
            raise ValueError(
                "Expected an odd sequence_length: a sequence of the protocol "
                f"{name} has an image in its middle. Received: "
                f"sequence_length={sequence_length}. Take one more or less."
            )
        given["sequence_length"] = sequence_length
    return dataclasses.replace(protocol, **given)


def describe(protocol: Protocol) -> str:
    """Returns in words what the protocol measures."""
    words = [
        "Recall@N is the share of queries with at least one positive among "
        "their N nearest database images, by exact search over squared "
        "Euclidean distances.",
        f"A positive is {_positive(protocol)}.",
    ]
    if protocol.every > 1:
        words.append(f"Of the frames, every {protocol.every}th is a query.")
    if protocol.subtask:
        words.append(
            f"Queries and database are those of the subtask {protocol.subtask}."
        )
    words += _of_sequences(protocol)
    if protocol.rule == "list":
        junk = " or ".join(f'"{kind}"' for kind in protocol.junk)
        words.append(f"Images listed as {junk} are taken out of the ranking.")
    if protocol.one_per_panorama:
        words.append(
            f"Of {PANORAMA_CUTOUTS} N images found, only the first of each "
            "panorama stands, and of these the first N."
        )
    if protocol.other_timestamp:
        words.append(
            f"Of {TIMESTAMP_DEPTH} N images found, those with the query's "
            "timestamp are taken out, and the first N of the others stand."
        )
    if protocol.other_sequence:
        words.append(
            "Images of the query's own sequence are taken out of its ranking, "
            "and are no positives."
        )
    if protocol.full_ranking:
        words.append(
            "Average precision is the area below precision over recall, by "
            "trapezoids, of the ranking of the whole database; precision@N "
            "ends at the last positive where that comes earlier."
        )
    if protocol.mean_average_precision_at:
        words.append(
            "Average precision@N is the sum of the precisions at the "
            "positives among the first N, divided by the number of positives "
            "or by N, whichever is smaller."
        )
    words.append(
        "A query without any positive "
        + ("is left out." if protocol.leaves_out else "counts as a miss.")
    )
    return " ".join(words)


def _of_sequences(protocol: Protocol) -> list[str]:
    if not protocol.sequences:
        return []
    queries, _, database = protocol.sequences.partition("2")
    sequence = (
        f"{protocol.sequence_length} images of consecutive frames around each "
        "image that has them"
    )
    return [
        "Queries are "
        + (f"sequences, {sequence}" if queries == "seq" else "images")
        + "; the database holds "
        + (f"sequences, {sequence}." if database == "seq" else "images."),
        "A sequence or image of the database is right if one of its images is "
        "a positive of one of the query's images.",
    ]


def _positive(protocol: Protocol) -> str:
    if protocol.rule == "radius":
        looking = (
            f", looking at most {protocol.heading_deg:g} degrees away from "
            "where the query looks"
            if protocol.heading_deg
            else ""
        )
        stamped = ", of another timestamp" if protocol.other_timestamp else ""
        return (
            f"a database image at most {protocol.radius_m:g} m away"
            + looking
            + stamped
        )
    if protocol.rule == "place":
        return "a database image of the same place_id"
    if protocol.rule == "frames":
        return (
            f"a database image at most {protocol.frames} frames away in the "
            "sequence of the same sequence_id"
        )
    listed = " or ".join(f'"{kind}"' for kind in protocol.right)
    return f"a database image listed as {listed}"
