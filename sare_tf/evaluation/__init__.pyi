from . import metrics as metrics
from . import protocols as protocols
