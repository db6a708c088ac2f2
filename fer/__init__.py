"""Facial emotion recognition with one compact CNN on two datasets.

Importing this package is cheap: nothing here imports torch, so that the command line can
compose a configuration, print its help or reject a bad override at once.
"""

__version__ = "0.1.0"
