"""How the pages are built: sphinx-build -W docs OUT."""

import pathlib
import re
import shutil
from typing import Any

import synflow_jax

HERE = pathlib.Path(__file__).parent

project = "synflow_jax"
author = "The synflow_jax authors"
copyright = author
release = version = synflow_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["package.md", "_build"]  # the first is a part of other pages

html_theme = "sphinx_book_theme"
html_title = f"synflow_jax {release}"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks come with their outputs

default_role = "py:obj"  # `synflow` in a docstring links to synflow
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # Args say it in words
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Source"]


def copy_notebooks() -> None:
    """Bring the notebooks of the repository under the folder that Sphinx reads."""
    here = HERE / "notebooks"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    for path in (HERE.parent / "notebooks").glob("0*.ipynb"):
        shutil.copy(path, here)
    if not any(here.iterdir()):
        (here / "0_none.md").write_text("# None\n\nThis build was made without notebooks.\n")


def escape_marks(
    _app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: Any
) -> None:
    """Escape |θ|, a*b and a_ in docstrings, which mean no mark-up; leave examples as they are."""
    example = False
    for i, line in enumerate(lines):
        example = (example or line.lstrip().startswith(">>>")) and bool(line.strip())
        if not example:
            stars, rest = re.match(r"(\s*\**)(.*)", line).groups()  # **settings: see napoleon
            lines[i] = stars + re.sub(r"([|*]|_(?!\w))", r"\\\1", rest)


def reach_experiments(_app: Any, path: Any, _page: Any, text: Any) -> None:
    """Lead links between the files of experiments there from a page that includes their table."""
    if path.parts[-2:] == ("experiments", "README.md"):
        text[0] = re.sub(r"\]\((?=\w+\.py\))", "](../experiments/", text[0])


def find_in_wings(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Lead a name without its path, such as `layer_flow`, to its entry in whichever wing it is."""
    python, target = env.get_domain("py"), node["reftarget"]
    found = [name for name in python.objects if name.endswith(f".{target}")]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    kind = node["reftype"]
    return python.resolve_xref(env, node["refdoc"], app.builder, kind, found[0], node, shown)


def setup(app: Any) -> None:
    """Connect to Sphinx."""
    copy_notebooks()
    app.connect("autodoc-process-docstring", escape_marks, priority=400)  # before napoleon
    app.connect("include-read", reach_experiments)
    app.connect("missing-reference", find_in_wings)
