"""The folder for files that can be made or fetched again.

    $SARE_TF_CACHE                      if it is set
    ~/.cache/sare_tf                    $XDG_CACHE_HOME stands for ~/.cache
    ~/Library/Caches/sare_tf            macOS
    %LOCALAPPDATA%\\sare_tf\\Cache        Windows

Deleting it, or anything in it, costs only time.
"""

import os
import sys
from pathlib import Path

from sare_tf.runtime import paths

# Names another folder.
VARIABLE = "SARE_TF_CACHE"


def folder() -> Path:
    """Returns the folder, which need not exist."""
    if os.environ.get(VARIABLE):
        return Path(paths.expand(os.environ[VARIABLE], name=VARIABLE))
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
        return Path(paths.expand(local)) / "sare_tf" / "Cache"
    if sys.platform == "darwin":
        return Path(paths.expand("~/Library/Caches")) / "sare_tf"
    # Of the XDG Base Directory Specification, which ignores relative paths.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = paths.expand("~/.cache")
    return Path(cache) / "sare_tf"
