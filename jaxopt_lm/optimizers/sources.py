"""Where code that is not ours comes from: one file, as it was when it was loaded, so that a run can keep it.

What counts as the source of a class or function is the one file that defines it. What that file imports is not kept and
not compared: it is imported from where Python finds it.
"""

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import sha256_of

_SPEC = re.compile(r"(?:(?P<file>.+\.py)|(?P<module>[A-Za-z_][\w.]*)):(?P<attribute>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)")


class Origin(NamedTuple):
    """Where a class or a function comes from.

    Attributes:
      place: name of a file, or dotted name of a module within a package.
      attribute: its name there.
      content: the bytes of the file.
    """

    place: str
    attribute: str
    content: bytes

    @property
    def name(self) -> str:
        """`FILE.py:ATTRIBUTE`, or of a package `MODULE:ATTRIBUTE`."""
        return f"{self.place}:{self.attribute}"

    @property
    def file(self) -> str:
        """The name under which a run keeps the source."""
        return file_of(self.name)

    @property
    def sha256(self) -> str:
        return sha256_of(self.content)


def file_of(name: str) -> str:
    """The file in which a run keeps the source of an `Origin.name`."""
    place = name.partition(":")[0]
    return place if place.endswith(".py") else place.rpartition(".")[2] + ".py"


# By the name in `sys.modules`: (`Origin.place`, `Origin.content`).
LOADED: dict[str, tuple[str, bytes]] = {}


def remember(name: str) -> None:
    """Reads the file of a module that is being imported, or imported anew: later the file may be another."""
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    if "@" in name or not file.endswith(".py") or not Path(file).is_file():
        return
    within = f"{name}.__init__" if hasattr(sys.modules[name], "__path__") else name
    LOADED[name] = within if "." in within else Path(file).name, Path(file).read_bytes()


def origin_of(thing: Any) -> Origin:
    """The origin of a class or function.

    Raises:
      InputError: it is defined in no file, or not at the top level of one.
    """
    module, attribute = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", "")
    found = _remembered(module) and _is_where_it_says(thing)
    _require_found(found, attribute or str(thing))
    return Origin(LOADED[module][0], attribute, LOADED[module][1])


def _remembered(name: str) -> bool:
    """Whether a module has a file; it is read unless that was done before."""
    if name not in LOADED:
        remember(name)
    return name in LOADED


def _require_found(found: bool, what: str) -> None:
    require(
        found,
        f"{what}: is made in a function, in a notebook or at a prompt, or has no source, so a run could not find it "
        "again; define it at the top level of a file",
    )


def load_file(path: Path, within: str | None = None) -> ModuleType:
    """The module in a file; the same one wherever the file's name and bytes are the same.

    It can import the modules beside it.

    Args:
      path: of the file.
      within: the dotted name of a module in a package, for its relative imports; None: it is in none.

    Raises:
      InputError: it imports what is not there. Any other error of the file is the user's and keeps its traceback.
    """
    content, called = path.read_bytes(), within or path.name
    name = f"{called}@{sha256_of(content)[:16]}"  # no import statement can name it
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(within or path.stem.replace(".", "_"), path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__name__ = name
    sys.modules[name], LOADED[name] = module, (called, content)
    try:
        with importing_beside(path):
            exec(compile(content, path, "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name], LOADED[name]
        if isinstance(error, ImportError):
            raise InputError(f"{path}: {error}; put what it imports beside it, or on PYTHONPATH") from None
        raise
    return module


@contextlib.contextmanager
def importing_beside(path: Path) -> Iterator[None]:
    """Within it, the modules beside a file can be imported, after all others."""
    beside = str(path.parent.absolute())
    added = [] if beside in sys.path else [beside]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def find(spec: str) -> tuple[Any, Origin]:
    """What `FILE.py:ATTRIBUTE` or `MODULE:ATTRIBUTE` names, and its origin.

    Raises:
      InputError: no such file, module or attribute.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise InputError(f"'{spec}': must be FILE.py:NAME or MODULE:NAME")
    if match["file"]:
        path = Path(match["file"])
        require(path.is_file(), f"'{spec}': no such file {path}")
        module = load_file(path)
        thing = _attribute(module, match["attribute"], spec)
        return thing, Origin(path.name, match["attribute"], LOADED[module.__name__][1])
    thing = _attribute(_imported(match["module"], spec), match["attribute"], spec)
    if _is_where_it_says(thing):
        return thing, origin_of(thing)
    _require_found(_remembered(match["module"]), spec)
    place, content = LOADED[match["module"]]
    return thing, Origin(place, match["attribute"], content)


def _is_where_it_says(thing: Any) -> bool:
    """Whether a class or function is to be found by its own module and name: a `functools.partial` is not."""
    home: Any = sys.modules.get(getattr(thing, "__module__", None) or "")
    for part in getattr(thing, "__qualname__", "?").split("."):
        home = getattr(home, part, None)
    return home is thing


def find_again(name: str, sha256: str, folder: Path) -> tuple[Any, Origin]:
    """What had the `Origin.name` when its source was kept in a run's folder.

    A module whose file is still the same is imported; else what the folder has is executed.

    Raises:
      InputError: the kept source is missing, or not the one with this SHA-256.
    """
    match = _SPEC.fullmatch(name)
    if match is None:
        raise InputError(f"'{name}': must be FILE.py:NAME or MODULE:NAME")
    kept, within, attribute = folder / file_of(name), match["module"], match["attribute"]
    module = _unchanged(within, sha256) if within else None
    if module is None:
        require(kept.is_file(), f"{kept}: no such file; it is the source of {name}, which the run keeps; put it back")
        same = sha256_of(kept.read_bytes()) == sha256
        require(same, f"{kept}: is not the source that the run began with; put it back")
        module = load_file(kept, within)
    thing = _attribute(module, attribute, name)
    return thing, Origin(within or kept.name, attribute, LOADED[module.__name__][1])


def _unchanged(called: str, sha256: str) -> ModuleType | None:
    """The module of this name, if there is one and its file has this SHA-256."""
    called = called.removesuffix(".__init__")
    try:
        module = importlib.import_module(called)
    except ImportError:
        return None
    return module if _remembered(called) and sha256_of(LOADED[called][1]) == sha256 else None


def _imported(called: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(called)
    except ImportError as error:
        raise InputError(f"'{spec}': {error}; name a file as FILE.py:NAME") from None


def _attribute(module: ModuleType, attribute: str, spec: str) -> Any:
    thing: Any = module
    for part in attribute.split("."):
        require(hasattr(thing, part), f"'{spec}': {module.__file__} has no {attribute}")
        thing = getattr(thing, part)
    return thing
