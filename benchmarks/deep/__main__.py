"""Measure the flow of deep networks: `python -m benchmarks.deep` runs benchmarks/deep/rows.py."""

import sys

from benchmarks.deep.rows import main

if __name__ == "__main__":
    main(sys.argv[1:])
