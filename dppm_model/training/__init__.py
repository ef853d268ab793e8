"""The server's learners, one for each question of `dppm_model.score`.

No site receives this code: it is post-processing of opened sums.
"""
