"""Measure a checkpoint on one split of a dataset: ``fer evaluate`` from a checkout."""

import sys

from fer.tasks.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("evaluate", sys.argv[1:]))
