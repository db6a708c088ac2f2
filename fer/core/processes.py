"""Worker processes: how many, and that none outlives the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager


def cpu_count() -> int:
    """Cores that this process may use (a container or ``taskset`` may allow fewer than exist)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def worker_pool(count: int, start: Callable[[], None] | None = None) -> Iterator[Executor]:
    """``count`` processes that end with this one.

    Args:
        count: of them.
        start: called in each before its first task.
    """
    methods = multiprocessing.get_all_start_methods()
    if multiprocessing.get_start_method(allow_none=True) not in (None, *methods):
        # A job that joblib runs: its way of starting processes is unknown to its own children.
        multiprocessing.set_start_method("spawn", force=True)
    # spawn, not fork: the parent may hold locks of torch's or OpenMP's threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(count, context, start_worker, (start,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def start_worker(start: Callable[[], None] | None) -> None:
    """Let this process end when the one that started it does, even if that is killed.

    The queue that a pool's workers read from stays open as long as one of them lives: they would
    wait at it for ever.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if start is not None:
        start()
