"""`dppm serve`: images of a trained run over gRPC; `sampling.proto` is the interface.

`interceptor` admits calls, `requests` checks their content, `scheduler` runs their jobs on the
workers of `sampler.pool`, `access` and `quota` decide on clients and amounts, `service` answers,
`status` refuses, `methods` names the calls, `server` connects all of them; `client` calls.
"""

import os

# Ray forks to start its processes. With gRPC's handlers in place, forking a process that has used
# gRPC can hang. The variable is read once, when grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
