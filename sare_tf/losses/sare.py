"""SARE: stochastic attraction and repulsion, over tuples.

A tuple is a query, its positive and N negatives. Axis letters: B tuples of a
batch, T = 2 + N images of a tuple in that order, D descriptor length.
Distances are squared Euclidean. Everything is computed in float32.

With s the kernel of a distance d, l = log s(d), p the positive, i a negative:

    joint        -log(s_p / (s_p + sum_i s_i)) = log(1 + sum_i exp(l_i - l_p))
    independent  mean over i of -log(s_p / (s_p + s_i))
                                               = mean_i log(1 + exp(l_i - l_p))

Source: Liu, Li, Dai, "Stochastic Attraction-Repulsion Embedding for Large
Scale Image Localization", ICCV 2019, section 3.
"""

import keras
from keras import ops

from sare_tf.losses import distances, kernels
from sare_tf.losses.bandwidth import InverseBandwidth
from sare_tf.losses.keras_losses import DescriptorLoss, DType, Reduction


def sare_joint(
    positive, negatives, *, kernel="gaussian", inverse_bandwidth=1.0
):
    """log(1 + sum_i exp(l_i - l_p)): all negatives compete at once.

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
    # Unlike log(1 + x), exact in float32 for small losses too.
    return ops.softplus(ops.logsumexp(repulsion, axis=1))


def sare_independent(
    positive, negatives, *, kernel="gaussian", inverse_bandwidth=1.0
):
    """Mean over negatives of log(1 + exp(l_i - l_p)), one negative at a time.

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
class SARELoss(DescriptorLoss):
    """SARE as a Keras loss over tuples of descriptors.

    With s the kernel of a distance, p the positive and i a negative, the loss
    of a tuple is

        joint        log(1 + sum_i s_i / s_p)
        independent  mean over i of log(1 + s_i / s_p)

    The form over dot products, exp(cos / t), is the Gaussian kernel with
    `inverse_bandwidth = 1 / (2 * t)`.

    Descriptors must have unit length: otherwise scaling them could make the
    loss small, and retrieval compares unit vectors. Eager calls check the
    length; a compiled graph, such as that of `fit`, cannot. Networks of
    `build_embedder` return unit vectors. End your own network with
    `keras.layers.UnitNormalization()`.

    Choosing the learning rate: with `scaling="tuples"`, the loss of a batch is
    the mean over tuples, as in OpenIBL. deepIBL, the code of the authors,
    divides the gradient of both forms by the number of negatives in the batch.
    The independent form is a mean over negatives in any case. For the joint
    form, this is a factor of 1 / N. To train with a learning rate r of deepIBL,
    pass either `scaling="negatives"` with r, or `scaling="tuples"` with r / N.
    With SGD, both give the same update if the weight decay, which is scaled by
    the rate, is multiplied by N in the second case. With Adam, which ignores
    the scale of a loss, use "tuples" and r.

    Source: Liu, Li, Dai, "Stochastic Attraction-Repulsion Embedding for Large
    Scale Image Localization", ICCV 2019, section 3; for the scalings,
    github.com/Liumouliu/deepIBL, train*.m, and github.com/yxgeee/OpenIBL,
    ibl/trainers.py.

    Args:
        form: "joint" or "independent".
        kernel: "gaussian", "cauchy" or "exponential".
        inverse_bandwidth: factor on the squared distances, or an
            `InverseBandwidth`, which changes; 1 is the paper's.
        scaling: "tuples", or "negatives" to divide the joint form by N.
        reduction: how Keras reduces [B]; its default is the mean.
        name: of the loss.
        dtype: of the returned values.

    Call arguments:
        y_true: ignored.
        y_pred: descriptors of unit length, [B, T, D].

    Output shape:
        [B] from `call`; reduced as `reduction` says from `__call__`.

    Example:

    ```python
    model = sare_tf.over_tuples(embedder)
    model.compile(optimizer="sgd", loss=sare_tf.SARELoss(form="joint"))
    ```
    """

    def __init__(
        self,
        *,
        form: str = "joint",
        kernel: str = "gaussian",
        inverse_bandwidth: float | InverseBandwidth = 1.0,
        scaling: str = "tuples",
        reduction: Reduction = "sum_over_batch_size",
        name: str = "sare_loss",
        dtype: DType = None,
    ):
        super().__init__(
            form=form,
            kernel=kernel,
            inverse_bandwidth=inverse_bandwidth,
            scaling=scaling,
            reduction=reduction,
            name=name,
            dtype=dtype,
        )
        if form == "independent" and scaling != "tuples":
            raise ValueError(
                "Expected scaling='tuples' with form='independent', which is "
                "already a mean over negatives. Received: "
                f"scaling={scaling!r}."
            )

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


def _repulsion(positive, negatives, kernel, inverse_bandwidth):
    """l_i - l_p, float32 [B, N]."""
    distances.check_tuple_distances(positive, negatives)
    settings = {"kernel": kernel, "inverse_bandwidth": inverse_bandwidth}
    positive = kernels.log_kernel(positive, **settings)
    return kernels.log_kernel(negatives, **settings) - positive[:, None]
