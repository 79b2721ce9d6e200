"""Networks as torchvision builds them, for weights that were trained there.

A layer with weights has the name of torchvision's module with `_` for `.`:
`features_1_conv_0_0` is `features.1.conv.0.0`. Padding is PyTorch's, which is
the same on all sides.
"""
