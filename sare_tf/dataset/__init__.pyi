from . import manifest as manifest
