"""Several items of work at once, where one is too small to be shared out among threads.

Threads share what there is and cost nothing to start, but hinder each other in work that is not one large computation after the
other; processes do not, but take seconds to start and get copies."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from tomotwin_core.errors import UserError

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


def in_processes(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The same, each in a process of its own; function, items and results are pickled. UserError where one is killed."""
    workers = min(torch.get_num_threads(), len(items))
    # Forked, a process could wait for ever for threads that only its parent has.
    context = multiprocessing.get_context("spawn")
    done = False
    try:
        with ProcessPoolExecutor(workers, context, initializer=_on_one_thread) as pool:
            for result in pool.map(function, items):
                done = True
                yield result
    except BrokenProcessPool as error:
        if not done and _script_without_guard():
            raise UserError(
                f"{sys.modules['__main__'].__file__}: the processes that it starts run it once more and ended before their work; put what the "
                'script does under: if __name__ == "__main__":'
            ) from error
        raise UserError(
            "a process was ended before its work was done, most likely for want of memory; give the call more memory or fewer tomograms"
        ) from error


def end_with_parent(every_s: float = 1.0) -> None:
    """End this process when the one that started it is gone: killed, it can tell nobody, and workers would compute on for it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _script_without_guard() -> bool:
    """Whether the program is a script of somebody's that does not ask whether it is run or imported."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    try:
        return (
            script is not None and script.endswith(".py") and "__main__" not in Path(script).read_text(errors="replace")
        )
    except OSError:
        return False


def _on_one_thread() -> None:
    end_with_parent()
    torch.set_num_threads(1)
    threadpool_limits(1)
