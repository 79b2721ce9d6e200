"""Problems of datasets and records, as pure functions of manifest and images.

A finding is an error if training or evaluation would be wrong, a warning if
they may be, and a note if it is good to know. Each finding names the images
concerned and says what to do. Rows are positions in the manifest.
"""
