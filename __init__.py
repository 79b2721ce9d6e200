"""Stands for the package where Python takes the repository for it.

From the folder above a clone that is named sare_tf, `import sare_tf` finds this
folder, which would be an empty namespace without this file. An installed
package goes first, then the one in this folder.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_clone = Path(__file__).resolve().parent
_path = [
    *(
        entry
        for entry in sys.path
        if Path(entry, "sare_tf").resolve() != _clone
    ),
    str(_clone),
]
_spec = importlib.machinery.PathFinder.find_spec("sare_tf", _path)
sys.modules[__name__] = importlib.util.module_from_spec(_spec)
try:
    _spec.loader.exec_module(sys.modules[__name__])
except ModuleNotFoundError as _error:
    raise ImportError(
        "Expected an environment in which sare_tf is installed. Received: "
        f"{_error}, in {sys.executable}. Run pip install -e {_clone}, or take "
        f"the environment that make install makes, {_clone / '.venv'}."
    ) from _error
