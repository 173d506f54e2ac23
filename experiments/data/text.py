"""A text for a language model: the documentation strings of Python's standard library.

The modules are a fixed list in alphabetical order, of which every ninth is validation. Characters
are one byte each, in a fixed vocabulary: newline and printable ASCII; others become "?". The text
differs between versions of Python, so rows store its digest.
"""

import dataclasses
import hashlib
import importlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

NAMES = """
    abc argparse array ast base64 bdb bisect builtins calendar cmath cmd code codecs codeop
    collections collections.abc compileall concurrent.futures configparser contextlib copy csv
    ctypes dataclasses datetime decimal difflib dis doctest email.message email.utils enum
    filecmp fileinput fractions ftplib functools gc getopt gettext glob graphlib gzip hashlib heapq
    hmac html.parser http.client http.cookiejar http.cookies http.server imaplib inspect io
    ipaddress itertools json json.decoder json.encoder linecache locale logging logging.config
    logging.handlers mailbox math mimetypes multiprocessing.managers multiprocessing.pool numbers
    operator optparse os pathlib pdb pickle pickletools pkgutil platform plistlib poplib pprint
    pstats py_compile pyclbr pydoc queue random re runpy sched secrets selectors shelve shlex
    shutil signal site smtplib socket socketserver statistics string struct subprocess symtable
    sys sysconfig tarfile tempfile textwrap threading time timeit tokenize trace traceback
    tracemalloc types typing unittest.case unittest.loader unittest.mock unittest.suite
    urllib.parse urllib.request uuid venv warnings wave weakref webbrowser xml.dom.minidom
    xml.etree.ElementTree xmlrpc.client xmlrpc.server zipfile zipimport zlib
"""
MODULES = tuple(NAMES.split())
# typing_extensions replaces these, and the text must not depend on what is imported.
REPLACED = {"typing": {"_check_generic", "_collect_parameters"}}
NINTH = 9
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
UNKNOWN = CHARACTERS.index("?")


@dataclasses.dataclass(frozen=True)
class Text:
    """Text for training and for validation, as indices into CHARACTERS, uint8 (length,)."""

    train: np.ndarray
    validation: np.ndarray

    @property
    def digest(self) -> str:
        """A fingerprint of both parts, 16 hexadecimal digits."""
        parts = self.train.tobytes() + b"\xff" + self.validation.tobytes()
        return hashlib.sha256(parts).hexdigest()[:16]


def load(modules: Sequence[str] = MODULES) -> Text:
    """Collect the documentation strings of modules, each once; training takes precedence.

    Args:
      modules: names of importable modules; every ninth is validation.

    Returns:
      The text. It is the same in every process of one Python, unless an earlier import replaced a
      part of the library, as PyTorch does with inspect.getfile.

    Raises:
      ValueError: one of the two parts is empty, as under `python -OO`.
    """
    seen: set[str] = set()
    held = modules[NINTH - 1 :: NINTH]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # some modules warn when inspected
        train = _collect([name for name in modules if name not in held], seen)
        text = Text(encode(train), encode(_collect(held, seen)))
    if not (len(text.train) and len(text.validation)):
        raise ValueError("modules have no documentation strings: Python must run without -OO")
    return text


def encode(string: str) -> np.ndarray:
    """Encode a string as indices into CHARACTERS, uint8 (length,)."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[[ord(c) for c in CHARACTERS]] = np.arange(len(CHARACTERS))
    return table[np.frombuffer(string.encode("ascii", "replace"), np.uint8)]


def _collect(modules: Sequence[str], seen: set[str]) -> str:
    found = []
    for name in modules:
        for thing in _things(importlib.import_module(name), name):
            string = inspect.getdoc(thing)
            if string and string not in seen:
                seen.add(string)
                found.append(string)
    return "".join(f"{string}\n\n" for string in found)


def _is_class_or_routine(thing: Any) -> bool:
    return inspect.isclass(thing) or inspect.isroutine(thing)


def _things(module: Any, name: str) -> Iterator[Any]:
    """Yield a module, its functions and classes by name, and after each class its methods."""
    yield module
    for key, thing in inspect.getmembers(module, _is_class_or_routine):
        own = getattr(thing, "__module__", None) == name
        if own and key not in REPLACED.get(name, ()):
            yield thing
            parts = vars(thing) if inspect.isclass(thing) else {}
            methods = (parts[part] for part in sorted(parts))
            yield from (m for m in methods if inspect.isroutine(m) or isinstance(m, property))
