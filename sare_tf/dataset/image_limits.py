"""Limits of image files, above which they are refused before they are decoded.

They must be the same in training and in an export.
"""

# Decoded, an image has 3 bytes per pixel, and 12 while it is resized. 8192 x
# 8192, above the 50 million of telephones: ours.
MOST_PIXELS = 1 << 26

# A decoder goes over all pixels of a progressive JPEG once per scan: 7 ms for
# `MOST_PIXELS`, even if the scan says nothing. libpng takes 30 ms for each
# compressed text of a PNG. Ten scans are usual, optimisers make up to 20: ours.
MOST_SCANS = 32

# Pixels times scans, so that the largest images, too, are decoded in about 2 s
# of a core: ours.
MOST_PIXELS_OF_SCANS = MOST_PIXELS * 16

# libjpeg takes 15 to 40 ns for each byte that says something. Cameras of 60
# million pixels write up to 50 MB. Pixels bound what a PNG can say: ours.
MOST_JPEG_BYTES = 1 << 26

# The scans of a file that has too many to count.
UNCOUNTED = 1 << 24
