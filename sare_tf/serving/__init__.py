"""An export as a callable: in this process, or on a TF Serving."""

from sare_tf.serving.remote import RemoteServable, Server
from sare_tf.serving.servable import Servable, load, named_by_flags

__all__ = ["RemoteServable", "Servable", "Server", "load", "named_by_flags"]
