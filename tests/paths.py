"""Where the repository and the shared data lie."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Published files that are not part of the repository; tests that need them are
# skipped where they are absent.
SHARED = Path(os.environ.get("SARE_TF_SHARED", ROOT.parent / "shared"))
