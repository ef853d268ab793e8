import time

import pytest
import torch

from sampler.evaluation.parallel import run_jobs


def test_results_by_key_on_one_thread_each_and_threads_restored() -> None:
    before = torch.get_num_threads()
    seen: list[float] = []
    jobs = {n: (lambda report, n=n: (n * n, torch.get_num_threads())) for n in range(5)}
    assert run_jobs(jobs, seen.append) == {n: (n * n, 1) for n in range(5)}
    assert max(seen) == 1.0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("first", ["fails", "goes on"])
def test_a_failure_stops_the_other_jobs(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def fails(report) -> None:
        raise ValueError("as planned")

    def goes_on(report) -> None:
        for _ in range(1000):
            time.sleep(0.01)
            report(0.0)

    jobs = {"fails": fails, "goes on": goes_on}
    ordered = {first: jobs.pop(first)} | jobs
    begun = time.monotonic()
    with pytest.raises(ValueError, match="as planned"):
        run_jobs(ordered, lambda share: None)
    assert time.monotonic() - begun < 5
