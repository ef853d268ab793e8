"""The score model, and the questions to records that it learns from.

``model`` is what has been released: a closed-form mixture per class, a small network for what it
misses, and a pyramid of upsampling stages. ``query`` says what a record answers; ``moments`` are
the questions of the closed form, ``residual_query`` and ``pyramid_query`` those of the networks;
``phases`` lists them all. What is made of the answers is in `dppm_model.training`.
"""
