"""One job a core, one thread a job: the same bits on any number of cores.

Small networks gain little from several threads inside one operation, and lose much when another
process wants a core; independent trainings side by side keep every core busy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import torch

Job = Callable[[Callable[[float], None]], Any]
"""A job is handed a function to call with the share of it that is done."""


class _Stopped(Exception):
    """Raised inside the jobs that still run when another one has failed."""


def run_jobs(jobs: Mapping[Any, Job], progress: Callable[[float], None]) -> dict[Any, Any]:
    """Run all jobs and return their results by key; the first failure stops the others."""
    shares = dict.fromkeys(jobs, 0.0)
    stop = threading.Event()

    def run(key: Any) -> Any:
        def report(share: float) -> None:
            if stop.is_set():
                raise _Stopped
            shares[key] = share
            progress(sum(shares.values()) / len(shares))

        result = jobs[key](report)
        report(1.0)
        return result

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = {key: pool.submit(run, key) for key in jobs}
        for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
            future.result()
        return {key: future.result() for key, future in futures.items()}
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
