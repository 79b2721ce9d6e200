from .remote import RemoteServable as RemoteServable
from .servable import Servable as Servable
from .servable import load as load
from .servable import named as named
from .server import Server as Server
