"""The secure sum: the server learns the sum of the sites' reports, and nothing else of them.

Double masking with pairwise keys after Bonawitz et al. 2017 ("Practical Secure Aggregation for
Privacy-Preserving Machine Learning"), made cheaper in two ways: the reply that ends one round
already carries the keys and shares of the next, so that a round is two messages a site; and keys
of a round are authenticated by the channel between two sites, so that only the channel keys, once
a run, need signatures.

    shamir    secrets in shares        ring      masks and packing modulo 2^bits
    group     what all agree on        keys      identities, channels, derived keys
    material  what travels           wire      the same as flat fields
    member    a site's side            opening   the server's side
"""
