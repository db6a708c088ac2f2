"""Worker processes that do not outlive their parent, and who reads what this one prints."""

from __future__ import annotations

import multiprocessing
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager


def cpu_count() -> int:
    """The number of cores that this process may use; ``taskset`` or a container may limit it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def worker_pool(count: int, start: Callable[[], None] | None = None) -> Iterator[Executor]:
    """Start ``count`` worker processes that end with this one.

    ``start`` is called in each of them first.
    """
    methods = multiprocessing.get_all_start_methods()
    if multiprocessing.get_start_method(allow_none=True) not in (None, *methods):
        # In a joblib worker, whose start method does not exist in its children.
        multiprocessing.set_start_method("spawn", force=True)
    # spawn, not fork: the parent may hold locks of torch's or OpenMP's threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(count, context, start_worker, (start,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def start_worker(start: Callable[[], None] | None) -> None:
    """Make this worker exit with its parent, even if the parent is killed.

    The workers hold their task queue open for each other, so they would wait at it forever.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if start is not None:
        start()


def is_output_closed() -> bool:
    """True if nobody reads standard output any more; False where the system cannot tell."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
