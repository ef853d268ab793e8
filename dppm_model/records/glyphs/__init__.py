"""Letters rendered from fonts: 256x256 grey pictures, a class per letter, a person per font family.

``render.py`` draws, in a child process; ``rules.py`` chooses fonts, records and the test families;
``build.py`` writes the two splits; ``store.py`` finds the fonts.

The same fonts give the same bytes under one Pillow (its wheel carries FreeType): drawing and
comparing use whole numbers, and rounding elsewhere decides only near ties.
"""
