"""Prune networks of other packages: `python -m benchmarks.zoo` runs benchmarks/zoo/zoo_rows.py."""

import sys

from benchmarks.zoo.zoo_rows import main

if __name__ == "__main__":
    main(sys.argv[1:])
