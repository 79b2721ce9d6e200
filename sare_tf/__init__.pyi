from . import losses as losses
from .evaluation.evaluate_descriptors import (
    evaluate_descriptors as evaluate_descriptors,
)
from .losses.place_sare import PlaceSARELoss as PlaceSARELoss
from .losses.sare import SARELoss as SARELoss
from .model.augmentation import Augmentation as Augmentation
from .model.embedder import build_embedder as build_embedder
from .model.embedder import over_tuples as over_tuples
from .model.netvlad import NetVLAD as NetVLAD
from .training.batches import AugmentationDraws as AugmentationDraws
from .training.datasets import place_dataset as place_dataset
from .training.datasets import tuple_dataset as tuple_dataset
from .training.datasets import tuple_record_dataset as tuple_record_dataset
from .training.place_batches import PlaceBatchRule as PlaceBatchRule
from .training.place_network import PlaceNetwork as PlaceNetwork
from .training.run_folder import load_embedder as load_embedder

__version__: str
