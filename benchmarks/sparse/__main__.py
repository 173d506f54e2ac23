"""Time sparse products: `python -m benchmarks.sparse` runs benchmarks/sparse/products.py."""

from benchmarks.sparse.products import main

if __name__ == "__main__":
    main()
