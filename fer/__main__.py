"""``python -m fer COMMAND …``."""

import sys

from fer_lab import main

if __name__ == "__main__":
    sys.exit(main())
