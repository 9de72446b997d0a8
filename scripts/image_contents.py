"""Say what an image has above its base, and fail where some of it need not be there.

    docker export BASE_CONTAINER > base.tar; docker export CONTAINER > image.tar
    python scripts/image_contents.py base.tar image.tar

Prints the largest packages and folders. Caches, wheels, packages' tests, pip in the environment and
bytecode that Python would not believe, or that is there twice, are errors.
"""

from __future__ import annotations

import re
import struct
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

MB: Final = 1_000_000
NEEDLESS: Final = {
    "a cache": re.compile(r"(^|/)\.cache/|^var/cache/(apt|debconf|ldconfig)/.|^var/lib/apt/lists/."),
    "a wheel": re.compile(r"\.whl$"),
    "something left in /tmp or /mnt": re.compile(r"^(tmp|mnt)/."),
    "a package's tests": re.compile(r"/site-packages/(.*/)?tests/"),
    "pip": re.compile(r"^opt/.*/site-packages/pip/"),
    "optimised bytecode, a second time": re.compile(r"\.opt-\d\.pyc$"),
}


@dataclass(frozen=True, slots=True)
class File:
    """One file of an image; ``head`` is the 16 bytes that begin bytecode, else empty."""

    size: int
    mtime: int
    head: bytes
    link: bool


def files(path: Path) -> dict[str, File]:
    """Files and symbolic links of a container's export, by path."""
    with tarfile.open(path) as tar:
        return {member.name: _file(tar, member) for member in tar if member.isreg() or member.issym()}


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> File:
    content = tar.extractfile(member) if member.isreg() and member.name.endswith(".pyc") else None
    return File(member.size, int(member.mtime), content.read(16) if content else b"", member.issym())


def needless(added: dict[str, File], image: dict[str, File]) -> Iterator[str]:
    """A line for each added file that need not be there."""
    for name, file in added.items():
        yield from (f"{name} is {kind}" for kind, pattern in NEEDLESS.items() if pattern.search(name))
        if name.endswith(".pyc"):
            source = image.get(_source(name))
            if source is None:
                yield f"{name} is bytecode without its source"
            elif not source.link and struct.unpack("<III", file.head[4:]) != (
                0,
                source.mtime,
                source.size & 0xFFFFFFFF,
            ):
                yield f"{name} is bytecode of another state of its source: Python compiles that at each start"


def without_bytecode(added: dict[str, File]) -> list[str]:
    """Modules of the environment that Python would compile at each start of a read-only container."""
    compiled = {_source(name) for name in added if name.endswith(".pyc")}
    return [n for n in added if n.endswith(".py") and "/site-packages/" in n and n not in compiled]


def _source(bytecode: str) -> str:
    path = PurePosixPath(bytecode)
    return str(path.parent.parent / (path.name.split(".")[0] + ".py"))


def owner(name: str) -> str:
    """The package or folder that a file is counted to: a wheel's ``.libs`` to the wheel."""
    rest = name.partition("/site-packages/")[2]
    return (
        rest.split("/")[0].removesuffix(".libs").split(".cpython")[0] if rest else "/" + "/".join(name.split("/")[:2])
    )


def main(base_tar: Path, image_tar: Path) -> int:
    """Print the table and return how many files need not be there."""
    base, image = files(base_tar), files(image_tar)
    added = {name: file for name, file in image.items() if base.get(name) != file}
    sizes: Counter[str] = Counter()
    for name, file in added.items():
        sizes[owner(name)] += file.size
    print(f"above its base: {len(added)} files, {sum(sizes.values()) / MB:.1f} MB; the largest:")
    for where, size in sizes.most_common(14):
        print(f"  {size / MB:6.1f} MB  {where}")
    bytecode = sum(file.size for name, file in added.items() if name.endswith(".pyc"))
    bare = without_bytecode(added)
    print(f"  of all that {bytecode / MB:.1f} MB bytecode; {len(bare)} modules of the environment without")
    found = list(needless(added, image))
    for line in found[:20]:
        print(f"need not be there: {line}", file=sys.stderr)
    return len(found)


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1]), Path(sys.argv[2])) else 0)
