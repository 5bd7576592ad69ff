"""Where files lie: a local folder, an fsspec address, or the inside of a zip archive; and how a path in a cell is found.

Here: listing and reading, read-only, with size limits, nothing ever unpacked to disk. Not here: what a file means
(`table.py` reads tables, the modalities read values). A path in a table is the user's own data: absolute paths and
paths with '..' are followed.
"""

import os
import posixpath
import re
import stat
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from endwise.errors import BadValue, DataError, SetupError, nearest, refusal
from endwise.files import folder_bytes, folder_files

MAX_FILE_BYTES = 2 * 1024**3  # one value; a larger one is a mistake or needs cutting first
MAX_MEMBER_BYTES = 1024**3  # unpacked size of one archive member: a zip bomb stops here
OPEN_ARCHIVES = 16  # a table may name thousands of archives, a process may hold some hundred files
ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")
MEMBER = re.compile(r"^(?P<archive>.+?\.zip)!(?P<member>.+)$", re.IGNORECASE | re.DOTALL)


class Place(ABC):
    """A tree of files, by relative posix paths. Hidden files and folders (a leading dot, __MACOSX) are not listed."""

    address: str  # as shown to people, and what a relative path is relative to

    @abstractmethod
    def top(self) -> list[str]:
        """The files directly here, sorted."""

    @abstractmethod
    def tree(self) -> list[str]:
        """Every file here and below, sorted."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a regular file, or None where there is none."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """The file for reading; OSError when it cannot be."""

    @abstractmethod
    def spelled(self, name: str) -> str:
        """The path or address of `name`, such that `locate` finds it."""


class LocalPlace(Place):
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def top(self) -> list[str]:
        return sorted(child.name for child in self.root.iterdir() if child.is_file() and _shown(child.name))

    def tree(self) -> list[str]:
        return sorted(_walk(self.root))

    def size(self, name: str) -> int | None:
        try:
            found = (self.root / name).stat()
        except (OSError, ValueError):  # ValueError: a null byte, so no path at all
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, name: str) -> BinaryIO:
        return (self.root / name).open("rb")

    def spelled(self, name: str) -> str:
        return str(self.root / name)


class RemotePlace(Place):
    """A folder at an fsspec address: s3://, gs://, memory:// ..."""

    def __init__(self, fs: Any, root: str) -> None:
        self.fs = fs
        self.root = root.rstrip("/")
        self.address = str(fs.unstrip_protocol(self.root))

    def top(self) -> list[str]:
        listed = self.fs.ls(self.root, detail=True)
        names = (posixpath.basename(item["name"].rstrip("/")) for item in listed if item["type"] == "file")
        return sorted(name for name in names if _shown(name))

    def tree(self) -> list[str]:
        prefix = self.fs._strip_protocol(self.root).rstrip("/") + "/"
        names = (path.removeprefix(prefix) for path in self.fs.find(self.root))
        return sorted(name for name in names if all(_shown(part) for part in name.split("/")))

    def size(self, name: str) -> int | None:
        try:
            found = self.fs.info(self._path(name))
        except (OSError, ValueError):
            return None
        if found.get("type") != "file":
            return None
        return int(found.get("size") or 0)

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.fs.open(self._path(name), "rb"))

    def spelled(self, name: str) -> str:
        return str(self.fs.unstrip_protocol(self._path(name)))

    def _path(self, name: str) -> str:
        return posixpath.normpath(f"{self.root}/{name}") if self.root else name


class ZipPlace(Place):
    """The inside of a zip archive. Safe to hand to threads, forked and spawned processes: each opens its own."""

    def __init__(self, outer: Place, name: str) -> None:
        self.outer = outer
        self.name = name
        self.address = f"{outer.spelled(name)}!"
        self._opened: tuple[int, zipfile.ZipFile, dict[str, zipfile.ZipInfo]] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"outer": self.outer, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["outer"], state["name"])  # type: ignore[misc]

    def members(self) -> dict[str, zipfile.ZipInfo]:
        """Every file inside, by its normalised path."""
        return self._archive()[1]

    def top(self) -> list[str]:
        return [name for name in self.tree() if "/" not in name]

    def tree(self) -> list[str]:
        return sorted(name for name in self.members() if all(_shown(part) for part in name.split("/")))

    def size(self, name: str) -> int | None:
        found = self.members().get(posixpath.normpath(name))
        return None if found is None else found.file_size

    def open(self, name: str) -> BinaryIO:
        archive, members = self._archive()
        info = members.get(posixpath.normpath(name))
        if info is None:
            raise FileNotFoundError(f"{self.address}{name}")
        if info.file_size > MAX_MEMBER_BYTES:
            raise BadValue(f"{self.name}!{name} unpacks to {info.file_size} bytes, more than {MAX_MEMBER_BYTES}")
        if info.flag_bits & 0x1:
            raise BadValue(f"{self.name}!{name} is encrypted: unpack the archive first")
        return cast(BinaryIO, archive.open(info))

    def spelled(self, name: str) -> str:
        return f"{self.address}{name}"

    def _archive(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():  # a fork shares the file's position
                try:
                    local = isinstance(self.outer, LocalPlace)  # by its path, so that it is closed with the archive
                    archive = zipfile.ZipFile(self.outer.spelled(self.name) if local else self.outer.open(self.name))
                except (zipfile.BadZipFile, NotImplementedError) as wrong:
                    raise BadValue(f"{self.name} is not a readable zip archive ({wrong})") from None
                found = {posixpath.normpath(info.filename): info for info in archive.infolist() if not info.is_dir()}
                self._opened = (os.getpid(), archive, found)
            return self._opened[1], self._opened[2]


class Finder:
    """Finds the file that a cell names: next to the table, at an address, in an archive, or in a zip beside the table."""

    def __init__(self, place: Place, table: str | None = None, made_of: Sequence[str] = ()) -> None:
        self.place = place
        self.table = table  # file name of the table: of several zips, one named after it comes first
        self.own = tuple(made_of) if table is None else (table,)  # the files that the table itself was read from
        self._archives: OrderedDict[str, ZipPlace] = OrderedDict()
        self._beside: dict[str, list[tuple[ZipPlace, str]]] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "table": self.table}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["place"], state["table"])  # type: ignore[misc]

    def fetch(self, path: str) -> bytes:
        """The bytes of the file; of a folder on this machine those of an archive of its files. BadValue names the path and where it was looked for."""
        try:
            if self._is_folder(path):
                assert isinstance(self.place, LocalPlace)
                return folder_bytes(self.place.root / path)
            place, name = self._find(path)
            return read(place, name)
        except SetupError:
            raise
        except BadValue as wrong:
            raise BadValue(str(wrong)) from None
        except Exception as wrong:  # each fsspec backend has errors of its own (credentials, network, quota)
            raise BadValue(f"{_quoted(path)} cannot be read ({type(wrong).__name__}: {wrong})") from None

    def exists(self, path: str) -> bool:
        """Whether `fetch` would find a file (not whether it can be decoded)."""
        try:
            self._find(path)
        except (BadValue, OSError, ValueError):
            return False
        return True

    def files_of(self, path: str) -> list[str]:
        """The files that `fetch` would read, by their paths or addresses: of what is in an archive the archive, of a folder
        those in it. Empty where there is none."""
        try:
            if self._is_folder(path):
                assert isinstance(self.place, LocalPlace)
                return [str(file) for file in folder_files(self.place.root / path)]
            place, name = self._find(path)
        except (BadValue, SetupError, OSError, ValueError):
            return []
        while isinstance(place, ZipPlace):
            name = place.name
            place = place.outer
        return [place.spelled(name)]

    def _find(self, path: str) -> tuple[Place, str]:
        if not path or "\0" in path:
            raise BadValue(f"{_quoted(path)} is not a path")
        inside = MEMBER.match(path)
        if inside and not self._lies(path):
            return self._member(inside["archive"], inside["member"])
        if ADDRESS.match(path):
            place, name = _remote(path)
            if name is None or (place.size(name) is None and not path.startswith("http")):
                raise BadValue(f"{_quoted(path)}: there is no such file")
            return place, name
        for spelling in dict.fromkeys((path, path.replace("\\", "/"))):
            if self._lies(spelling):
                return self.place, spelling
            if found := self._in_zip(spelling):
                return found
        zips = sorted({place.name for hits in (self._beside or {}).values() for place, _ in hits})
        looked = self.place.address + (f" and inside {', '.join(zips[:5])}" if zips else "")
        raise BadValue(f"there is no file {_quoted(path)} (looked in {looked})")

    def _is_folder(self, path: str) -> bool:
        """A folder with a name: the one that the table lies in is no value."""
        if not isinstance(self.place, LocalPlace) or PurePath(path).name in ("", "..") or "\0" in path:
            return False
        try:
            return (self.place.root / path).is_dir()
        except OSError:  # too long for a path
            return False

    def _lies(self, path: str) -> bool:
        return self.place.size(path) is not None

    def _member(self, archive: str, member: str) -> tuple[Place, str]:
        outer, name = (self.place, archive) if not ADDRESS.match(archive) else _remote(archive)
        if name is None or outer.size(name) is None:
            raise BadValue(f"there is no archive {_quoted(archive)} (looked in {outer.address})")
        place = self._opened(outer, name)
        if place.size(member) is None:
            meant = nearest(member, place.members())
            raise BadValue(f"{archive} has no {_quoted(member)}" + (f": did you mean {meant!r}?" if meant else ""))
        return place, member

    def _opened(self, outer: Place, name: str) -> ZipPlace:
        with self._lock:
            key = outer.spelled(name)
            place = self._archives.pop(key, None) or ZipPlace(outer, name)
            self._archives[key] = place
            if len(self._archives) > OPEN_ARCHIVES:
                self._archives.popitem(last=False)  # closed when its last reader lets go
            return place

    def _in_zip(self, path: str) -> tuple[Place, str] | None:
        hits = self._index().get(posixpath.normpath(path), [])
        if len(_contents(hits)) > 1 and self.table is not None:
            stem = self.table.split(".")[0]
            own = [hit for hit in hits if re.match(rf"{re.escape(stem)}([_\-. ].*)?$", hit[0].name)]
            hits = own or hits
        if len(_contents(hits)) > 1:
            names = " and in ".join(place.name for place, _ in hits)
            raise BadValue(
                f"{_quoted(path)} is in {names} with different content: write '{hits[0][0].name}!{hits[0][1]}'"
            )
        return hits[0] if hits else None

    def _index(self) -> dict[str, list[tuple[ZipPlace, str]]]:
        """Names of the members of every zip beside the table, also spelt with the archive's name as a folder."""
        with self._lock:
            if self._beside is None:
                index: dict[str, list[tuple[ZipPlace, str]]] = {}
                for name in [] if isinstance(self.place, ZipPlace) else self.place.top():
                    if not name.lower().endswith(".zip"):
                        continue
                    place = ZipPlace(self.place, name)
                    for alias, member in _aliases(place):
                        index.setdefault(alias, []).append((place, member))
                self._beside = index
            return self._beside


def read(place: Place, name: str) -> bytes:
    """All bytes of a file, at most MAX_FILE_BYTES of them. BadValue with the reason otherwise."""
    size = place.size(name)
    if size is not None and size > MAX_FILE_BYTES:
        raise BadValue(f"{_quoted(name)} has {size} bytes, more than {MAX_FILE_BYTES}")
    try:
        with place.open(name) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as wrong:
        raise BadValue(f"{place.spelled(name)} cannot be unpacked ({wrong})") from None
    except OSError as wrong:
        raise BadValue(f"{_quoted(name)} cannot be read ({wrong.strerror or wrong})") from None
    if len(data) > MAX_FILE_BYTES:
        raise BadValue(f"{_quoted(name)} has more than {MAX_FILE_BYTES} bytes")
    return data


def locate(source: str) -> tuple[Place, str | None]:
    """The place of a path or address and the file's name in it; None as the name when it is a folder."""
    inside = MEMBER.match(source)
    if inside:
        outer, name = locate(inside["archive"])
        archive = ZipPlace(outer, name or "")
        if name is None or archive.size(inside["member"]) is None:
            raise not_there(source, [] if name is None else [f"{inside['archive']}!{item}" for item in archive.tree()])
        return archive, inside["member"]
    if ADDRESS.match(source):
        place, name = _remote(source)
        if name is not None and not source.startswith("http") and place.size(name) is None:
            raise not_there(source, [])
        return place, name
    path = Path(source).expanduser()
    if path.is_dir():
        return LocalPlace(path), None
    if not path.is_file():
        siblings = [str(path.parent / child.name) for child in path.parent.iterdir()] if path.parent.is_dir() else []
        raise not_there(source, siblings)
    return LocalPlace(path.parent), path.name


def not_there(source: str, siblings: Iterable[str]) -> Exception:
    """The refusal of a path that does not exist, with the nearest one that does."""
    meant = nearest(source, siblings)
    fix = f"did you mean {meant!r}?" if meant else "check the path; a relative one is taken from the recipe's folder"
    return refusal(field="data", got=source, allowed="an existing file or folder", fix=fix, error=DataError)


def _remote(address: str) -> tuple[RemotePlace, str | None]:
    import fsspec
    from fsspec.registry import known_implementations

    protocol = address.split("://")[0].split("::")[-1]
    try:
        fs, path = fsspec.core.url_to_fs(address)
    except ImportError as missing:
        package = known_implementations.get(protocol, {}).get("class", protocol).split(".")[0]
        package = "aiohttp" if package == "fsspec" else package
        raise SetupError(f"reading {address} needs {package!r}: pip install {package} ({missing}).") from missing
    except ValueError as wrong:
        fix = "use s3://, gs://, https://, hf:// or another address that fsspec knows"
        raise refusal(field="data", got=address, allowed=f"an address ({wrong})", fix=fix, error=DataError) from None
    if not protocol.startswith("http") and fs.isdir(path):
        return RemotePlace(fs, path), None
    parent, _, name = path.rpartition("/")
    return RemotePlace(fs, parent), name


def _walk(root: Path) -> Iterator[str]:
    """Files below, symbolic links followed once each so that a loop of them ends."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = str(Path(folder).resolve())
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _shown(name))
        below = Path(folder).relative_to(root).as_posix()
        for name in files:
            if _shown(name):
                yield name if below == "." else f"{below}/{name}"


def _shown(name: str) -> bool:
    return not name.startswith(".") and name not in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _aliases(place: ZipPlace) -> Iterator[tuple[str, str]]:
    """The ways a table may spell a member: as it is, below the archive's name, and without the only top folder."""
    names = place.tree()
    stem = place.name[: -len(".zip")]
    tops = {name.split("/")[0] for name in names if "/" in name}
    only = f"{next(iter(tops))}/" if len(tops) == 1 and all("/" in name for name in names) else None
    taken = set(names)
    for name in names:
        yield name, name
        spellings = [f"{stem}/{name}"] + ([name.removeprefix(only)] if only else [])
        yield from ((alias, name) for alias in spellings if alias not in taken)


def _contents(hits: list[tuple[ZipPlace, str]]) -> set[tuple[int, int]]:
    return {(info.CRC, info.file_size) for place, member in hits for info in [place.members()[member]]}


def _quoted(path: str) -> str:
    return repr(path if len(path) <= 120 else path[:119] + "…")
