"""Benchmarks: commands that measure speed or check exactness, in folders by what they measure.

    python -m benchmarks          # list the commands
    python -m benchmarks.run      # runs benchmarks/speed/run.py

A command is named without its folder. `__path__` is the list of folders in which Python looks for
the modules of this package; with the folders of commands added to it, `benchmarks.run` is found in
benchmarks/speed/. `python -m benchmarks.deep`, `benchmarks.sparse` and `benchmarks.zoo` name
folders, and run the `__main__.py` in them. No two folders have a module of the same name.

Code imports a module by its full name, such as benchmarks.speed.run: Python would load it a second
time under the short name.
"""

from pathlib import Path

FOLDERS = ("speed", "compaction", "sparse", "deep", "exact", "zoo", "devices")

__path__.extend(str(Path(__file__).parent / folder) for folder in FOLDERS)
