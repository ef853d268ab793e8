"""`dppm serve`: images of a trained run over gRPC; `sampling.proto` is the interface.

`interceptor` lets calls in, `requests` checks what they ask for, `scheduler` runs their jobs on the
workers of `sampler.pool`, `quota` and `access` say who may ask for how much, `service` answers,
`status` refuses, `methods` names the calls, `server` binds all together; `client` calls.
"""

import os

# Ray forks to start its processes. With gRPC's handlers in place, the fork of a process that has
# used gRPC can hang. Read once, when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
