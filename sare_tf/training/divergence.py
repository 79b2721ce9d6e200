"""The end of a run whose values are not finite any more.

Descriptors have unit length, which bounds every loss. A learning rate that is
too high therefore ends in values that are not finite, or in descriptors that
are all alike, whose recall --patience ends.
"""


class Diverged(ValueError):
    """A loss, weight or descriptor is not finite.

    Nothing of the epoch was saved: the run is as it was after the last epoch,
    and resumes there, also with another --learning_rate.
    """
