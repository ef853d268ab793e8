"""The secure sum: the server learns the sum of the sites' reports, and nothing else of them.

Double masking with pairwise keys after Bonawitz et al. 2017 ("Practical Secure Aggregation for
Privacy-Preserving Machine Learning"), with two changes. The reply that ends one round already
carries the keys and shares of the next, so that a round is two messages a site. And a site that
lies is found out: by what all say of their masks before anything is opened, so that the round can
be tried again without it, or by what the opened shares prove.

    shamir      secrets in shares        ring      masks and packing modulo 2^bits
    group       what all agree on        keys      identities, channels, derived keys
    round_keys  what travels             wire      the same as flat fields
    member      a site's rules           dealing   its secrets and shares of one try
    masking     its report under masks   proof     what opened shares prove against a site
    opening     the server's side
"""
