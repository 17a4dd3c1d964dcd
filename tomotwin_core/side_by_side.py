"""Several items of work at once, where one is too small to be shared out among threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items: as many at a time as torch has threads, each of them on one."""
    threads = torch.get_num_threads()

    def alone(item: Item) -> Result:
        # What OpenMP may use is told thread by thread, what BLAS and torch may for all of them.
        with threadpool_limits(1, user_api="openmp"):
            return function(item)

    try:
        torch.set_num_threads(1)
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            yield from pool.map(alone, items)
    finally:
        torch.set_num_threads(threads)
