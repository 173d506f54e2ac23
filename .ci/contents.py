"""Look into a wheel and a sdist: all that belongs there, and nothing else."""

import pathlib
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).parent.parent
META = {"METADATA", "RECORD", "WHEEL", "top_level.txt", "licenses/LICENSE"}
BESIDE = {
    *("CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"),
    *("docs/package.md", "pyproject.toml", "setup.cfg"),
}


def package() -> set[str]:
    """Name the files of the package, as the repository has them."""
    paths = (ROOT / "synflow_jax").rglob("*")
    files = [path for path in paths if path.suffix == ".py" or path.name == "py.typed"]
    return {path.relative_to(ROOT).as_posix() for path in files}


def compare(name: str, found: set[str], wanted: set[str]) -> None:
    """Leave with what is missing or too much."""
    if found != wanted:
        sys.exit(f"{name}: missing {sorted(wanted - found)}, too much {sorted(found - wanted)}")
    print(f"{name}: {len(found)} files, as they should be")


def main(folder: str) -> None:
    """Check the one wheel and the one sdist of a folder."""
    (wheel,) = pathlib.Path(folder).glob("*.whl")
    (sdist,) = pathlib.Path(folder).glob("*.tar.gz")
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    compare(
        wheel.name,
        set(zipfile.ZipFile(wheel).namelist()),
        package() | {f"{info}/{name}" for name in META},
    )
    with tarfile.open(sdist) as archive:
        paths = [pathlib.PurePosixPath(one.name) for one in archive if one.isfile()]
    inside = {"/".join(path.parts[1:]) for path in paths}
    made = {name for name in inside if name.startswith("synflow_jax.egg-info/")}
    compare(sdist.name, inside - made, package() | BESIDE)


if __name__ == "__main__":
    main(*sys.argv[1:])
