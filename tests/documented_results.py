"""Compares results of stages with docs/output.md, whichever test runs them."""

import json
import re

from paths import ROOT

from sare_tf.runtime import stage_results


def documented() -> dict[str, dict[str, bool]]:
    """Returns the keys of each stage, and whether a key is always there."""
    stages, stage = {}, {}
    for line in (ROOT / "docs/output.md").read_text("utf-8").splitlines():
        if line.startswith("### "):
            stage = stages.setdefault(line.removeprefix("### "), {})
        elif row := re.match(r"\| `(\w+)` \| (.+) \|", line):
            stage[row[1]] = "absent" not in row[2]
    return stages


_STAGES = documented()


def check(text: str, document: dict) -> None:
    """Compares a result's keys with the documented ones; logs and writes it."""
    keys = _STAGES[document["stage"]]
    assert set(document) <= {"stage", "next", *keys}, document
    always = {key for key, is_always_there in keys.items() if is_always_there}
    assert set(document) >= {"stage", "next", *always}, document
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    stage_results.as_log(text, document)
    stage_results.as_text(text, document)
