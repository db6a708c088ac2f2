"""Train a network and measure it on the test split: ``fer train`` from a checkout."""

import sys

from fer.tasks.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:]))
