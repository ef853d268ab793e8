"""`dppm serve`: images of a trained run over gRPC; `sampling.proto` is the interface.

`orders` reads requests, `desk` runs them on the workers of `sampler.pool`, `quota` and `access` say
who may ask for how much, `service` answers calls, `server` binds them together; `client` calls.
"""
