"""Names of local features and geometries."""

ROOT_SIFT, XFEAT = "rootsift", "xfeat"
EXTRACTORS = (ROOT_SIFT, XFEAT)
# Share of an image's longer side that an inlier is off at most.
TOLERANCES = {"homography": 0.01, "fundamental": 0.005}
GEOMETRIES = tuple(TOLERANCES)
