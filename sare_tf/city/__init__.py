"""The rendered city: street places, painted and photographed with numpy.

`place` paints one side of a street, `moment` draws when and from where a
picture is taken, and `rendering` takes the picture. A place is a function of
its seed. Weather, light, passers-by and the faults of the camera are drawn anew
for every picture.

Metres: x along the street, y up, z from the camera towards the facades. The
place is at x = 0. Colours are float32 from 0 to 1 unless a module says
otherwise. Numbers without a source are ours, chosen by eye.
"""
