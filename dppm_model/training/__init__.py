"""What the server makes of the answers: learners, one for each question of `dppm_model.score`.

No site has any of this: it is post-processing of sums that were opened.
"""
