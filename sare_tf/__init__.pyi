# The public API. lazy_loader takes the names from the relative imports, and
# imports what they name when it is first used. `make api` after a change.
import typing

import sare_tf.export as _export
import sare_tf.import_weights as _import_weights
import sare_tf.runtime.callable_module as _callable_module

from . import build_records as build_records
from . import check as check
from . import compare as compare
from . import evaluate as evaluate
from . import export_dataset as export_dataset
from . import export_onnx as export_onnx
from . import export_vectors as export_vectors
from . import export_weights as export_weights
from . import index as index
from . import locate as locate
from . import losses as losses
from . import serving as serving
from . import synthetic_city as synthetic_city
from . import train as train
from .dataset import manifest as manifest
from .evaluation import metrics as metrics
from .evaluation import protocols as protocols
from .evaluation.evaluate_descriptors import (
    evaluate_descriptors as evaluate_descriptors,
)
from .losses.place_sare import PlaceSARELoss as PlaceSARELoss
from .losses.sare import SARELoss as SARELoss
from .model.augmentation import Augmentation as Augmentation
from .model.clusters import initialise_netvlad as initialise_netvlad
from .model.embedder import build_embedder as build_embedder
from .model.embedder import over_tuples as over_tuples
from .model.netvlad import NetVLAD as NetVLAD
from .model.pooling import MAC as MAC
from .model.pooling import RMAC as RMAC
from .model.pooling import GeM as GeM
from .model.pooling import SPoC as SPoC
from .model.precision import with_precision as with_precision
from .model.whitening import Whitening as Whitening
from .model.whitening import fit_whitening as fit_whitening
from .records.records import Records as Records
from .search.opened_index import Index as Index
from .search.prior import Prior as Prior
from .serving.servable import load_export as load_export
from .training.batches import AugmentationDraws as AugmentationDraws
from .training.datasets import place_dataset as place_dataset
from .training.datasets import tuple_dataset as tuple_dataset
from .training.datasets import tuple_record_dataset as tuple_record_dataset
from .training.place_batches import PlaceBatchRule as PlaceBatchRule
from .training.place_network import PlaceNetwork as PlaceNetwork
from .training.run_folder import load_embedder as load_embedder

# Stages that are functions, too. A type checker needs to know the functions.
if typing.TYPE_CHECKING:
    export = _callable_module.make_callable("sare_tf.export", _export.export)
    import_weights = _callable_module.make_callable(
        "sare_tf.import_weights", _import_weights.import_weights
    )
else:
    from . import export as export
    from . import import_weights as import_weights

__version__: str
