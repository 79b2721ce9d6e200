from .remote import RemoteServable as RemoteServable
from .remote import Server as Server
from .servable import Servable as Servable
from .servable import load as load
from .servable import named as named
