"""The notebook runs, and the page of the API is the one of the docstrings."""

import json
import runpy

import matplotlib.pyplot as plt
import numpy as np
from paths import ROOT


def _cells():
    notebook = json.loads((ROOT / "docs/quickstart.ipynb").read_text("utf-8"))
    return [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_the_notebook_runs(capsys):
    """On fewer places and for one epoch."""
    code = "\n\n".join(_cells())
    for written, smaller in (
        ("places=60", "places=40"),
        ("epochs=4", "epochs=1"),
    ):
        assert code.count(written) == 1
        code = code.replace(written, smaller)
    names = {}
    try:
        exec(compile(code, "docs/quickstart.ipynb", "exec"), names)
    finally:
        plt.close("all")
    assert names["errors"] == names["query_errors"] == {}
    recalls = list(names["results"].recall_at([1, 5, 10]).values())
    assert recalls == sorted(recalls)
    # The search of the notebook and the protocol agree on the nearest images.
    right = [
        np.linalg.norm(names["database_metres"][row] - metres) <= 25
        for row, metres in zip(
            names["rows"][:, 0], names["query_metres"], strict=True
        )
    ]
    assert np.mean(right) == recalls[0]
    assert "recall at 1, 5, 10" in capsys.readouterr().out


def test_the_page_of_the_api_is_up_to_date():
    page = runpy.run_path(str(ROOT / "docs/make_api.py"))["render"]()
    assert page == (ROOT / "docs/api.md").read_text("utf-8"), "Run `make api`."
