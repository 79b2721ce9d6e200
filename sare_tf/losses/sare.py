"""SARE: stochastic attraction and repulsion, over tuples.

A tuple is a query, its positive and N negatives. Axis letters: B tuples of a
batch, T = 2 + N images of a tuple in that order, D descriptor length.
Distances are squared Euclidean. Everything is computed in float32.

With l = log s(d), s the kernel of a distance, p the positive and i a negative:

    joint        -log(s_p / (s_p + sum_i s_i)) = log(1 + sum_i exp(l_i - l_p))
    independent  mean over i of -log(s_p / (s_p + s_i))
                                               = mean_i log(1 + exp(l_i - l_p))

Source: Liu, Li, Dai, "Stochastic Attraction-Repulsion Embedding for Large
Scale Image Localization", ICCV 2019, section 3.
"""

import keras
from keras import ops

from sare_tf.losses import distances, kernels


def sare_joint(
    positive, negatives, *, kernel="gaussian", inverse_bandwidth=1.0
):
    """All negatives compete with the positive at once.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        kernel: a name in `kernels.KERNELS`.
        inverse_bandwidth: factor on the squared distances.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or an unknown setting.
    """
    repulsion = _repulsion(positive, negatives, kernel, inverse_bandwidth)
    # Exact also where the loss is small, as log(1 + x) is not in float32.
    return ops.softplus(ops.logsumexp(repulsion, axis=1))


def sare_independent(
    positive, negatives, *, kernel="gaussian", inverse_bandwidth=1.0
):
    """Each negative competes with the positive by itself; the mean of them.

    Args:
        positive: squared distances from query to positive, [B].
        negatives: squared distances from query to negatives, [B, N].
        kernel: a name in `kernels.KERNELS`.
        inverse_bandwidth: factor on the squared distances.

    Returns:
        Loss per tuple, float32 [B].

    Raises:
        ValueError: wrong ranks, no negatives, or an unknown setting.
    """
    repulsion = _repulsion(positive, negatives, kernel, inverse_bandwidth)
    return ops.mean(ops.softplus(repulsion), axis=1)


FORMS = {"joint": sare_joint, "independent": sare_independent}


@keras.saving.register_keras_serializable(package="sare_tf")
class SARELoss(keras.losses.Loss):
    """SARE as a Keras loss over tuples of descriptors.

    Choosing the learning rate: with `scaling="tuples"`, Keras's mean over the
    batch gives the mean over tuples, as OpenIBL has it. The authors' deepIBL
    divides the gradient of both forms by the number of negatives in the batch.
    For the independent form that is the mean over negatives which it has
    anyway. For the joint form it is a factor 1 / N: to train with a learning
    rate r of deepIBL, either pass `scaling="negatives"` with r, or
    `scaling="tuples"` with r / N. With SGD both are the same update, if a
    weight decay is multiplied by N in the second case, as it is scaled by the
    rate; with Adam, which ignores the scale of a loss, use "tuples" and r.

    Descriptors must have unit length: of others, the loss could be made small
    by scaling them, and retrieval compares unit vectors. Eager calls check
    it; a compiled graph, as `fit` makes one, cannot. Networks of
    `build_embedder` end in unit length; end your own with
    `keras.layers.UnitNormalization()`.

    The form over dot products, exp(cos / t), is the Gaussian kernel with
    `inverse_bandwidth = 1 / (2 * t)`.

    Source: Liu, Li, Dai, ICCV 2019 (see the module); for the scalings,
    github.com/Liumouliu/deepIBL, train*.m, and github.com/yxgeee/OpenIBL,
    ibl/trainers.py.

    Args:
        form: "joint" or "independent".
        kernel: "gaussian", "cauchy" or "exponential".
        inverse_bandwidth: factor on the squared distances; 1 is the paper's.
        scaling: "tuples", or "negatives" to divide the joint form by N.
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D].

    Output shape:
        [B] from `call`; what `reduction` makes of it from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.SARELoss(form="joint"))
    ```
    """

    def __init__(
        self,
        *,
        form="joint",
        kernel="gaussian",
        inverse_bandwidth=1.0,
        scaling="tuples",
        reduction="sum_over_batch_size",
        name="sare_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_form(form)
        kernels.check(kernel=kernel, inverse_bandwidth=inverse_bandwidth)
        if scaling not in ("tuples", "negatives"):
            raise ValueError(
                "Expected scaling to be one of ['negatives', 'tuples']. "
                f"Received: scaling={scaling!r}."
            )
        if form == "independent" and scaling != "tuples":
            raise ValueError(
                "Expected scaling='tuples' with form='independent', which is "
                "a mean over negatives already. Received: "
                f"scaling={scaling!r}."
            )
        self.form = form
        self.kernel = kernel
        self.inverse_bandwidth = inverse_bandwidth
        self.scaling = scaling

    def call(self, y_true, y_pred):
        distances.check_unit_length(y_pred)
        positive, negatives = distances.tuple_distances(y_pred)
        losses = FORMS[self.form](
            positive,
            negatives,
            kernel=self.kernel,
            inverse_bandwidth=self.inverse_bandwidth,
        )
        if self.scaling == "negatives":
            losses = losses / ops.cast(ops.shape(negatives)[1], losses.dtype)
        return losses

    def get_config(self):
        return {
            **super().get_config(),
            "form": self.form,
            "kernel": self.kernel,
            "inverse_bandwidth": self.inverse_bandwidth,
            "scaling": self.scaling,
        }


def check_form(form):
    """Refuses a form that does not exist.

    Raises:
        ValueError: names the ones that do.
    """
    if form not in FORMS:
        raise ValueError(
            f"Expected form to be one of {sorted(FORMS)}. "
            f"Received: form={form!r}."
        )


def _repulsion(positive, negatives, kernel, inverse_bandwidth):
    """l_i - l_p, float32 [B, N]."""
    distances.check_tuple_distances(positive, negatives)
    settings = {"kernel": kernel, "inverse_bandwidth": inverse_bandwidth}
    positive = kernels.log_kernel(positive, **settings)
    return kernels.log_kernel(negatives, **settings) - positive[:, None]
