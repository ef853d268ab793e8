"""The secure sum: the server learns the sum of the sites' reports and nothing else about them.

Double masking with pairwise keys after Bonawitz et al. 2017 ("Practical Secure Aggregation for
Privacy-Preserving Machine Learning"), with two changes. The reply that ends one round already
carries the keys and shares of the next, so a round takes two messages a site. And a site that lies
is exposed: by the check numbers of all masks before anything is opened, so that the round can be
tried again without it, or by proofs from the opened shares.

    shamir      secrets in shares        ring      masks and packing modulo 2^bits
    group       the common facts         keys      identities, channels, derived keys
    round_keys  the messages             wire      the same as flat fields
    member      a site's rules           dealing   its secrets and shares of one try
    masking     its report under masks   proof     proofs of guilt from opened shares
    opening     the server's side
"""
