"""A model on the workers of Apache Beam. It imports Beam, which is an extra."""

from collections.abc import Callable, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler


class ItemHandler(ModelHandler[str, None, Any]):
    """Calls a function with an item and a model, for Beam's `RunInference`.

    Beam loads the model when a worker's process gets its first item, once for
    all threads of the process. Each item has a call of its own, so that batches
    do not depend on the runner: an item may stand for a whole batch.

    Beam's own handlers for TensorFlow cannot load a SavedModel under Keras 3,
    and import TensorFlow Hub.

    Args:
        load: makes the model; it can be pickled.
        function: called with an item and the model; it can be pickled.
    """

    def __init__(
        self, load: Callable[[], Any], function: Callable[[str, Any], None]
    ):
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._load = load
        self._function = function

    def load_model(self) -> Any:
        return self._load()

    def run_inference(
        self,
        batch: Sequence[str],
        model: Any,
        inference_args: dict[str, Any] | None = None,
    ) -> list[None]:
        del inference_args
        return [self._function(item, model) for item in batch]

    def get_metrics_namespace(self) -> str:
        return "sare_tf"
