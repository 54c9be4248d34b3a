"""Streams, judged by the `rbd` tool: the same bytes as its own, and each can read what the other wrote."""

import hashlib
import io
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rbd as real

import rbd_native as ours
from rbd_native import streams
from tests.cluster import CephCluster
from tests.interop.test_diff import MAPPED, PLAIN, Layout, Pool, live
from tests.releases import CUT_OFF, told

pytestmark = pytest.mark.ceph

# 16.2.15 says that the one byte of a snapshot's protection has a length of 8; later releases, and we, that it is 1.
OLD_PROTECTION, PROTECTION = (b"p" + bytes([length, 0, 0, 0, 0, 0, 0, 0]) for length in (8, 1))
State = dict[str | None, tuple[int, str]]


class Tool:
    """The `rbd` tool, on one pool, with files of a directory."""

    def __init__(self, ceph: CephCluster, pool: Pool, root: Path) -> None:
        self._ceph = ceph
        self.pool = pool
        self._root = root
        self._numbers = itertools.count()

    def path(self, content: bytes | None = None) -> Path:
        path = self._root / f"file-{next(self._numbers)}"
        if content is not None:
            path.write_bytes(content)
        return path

    def run(self, *words: str) -> None:
        self._ceph.cli("rbd", *words, "--no-progress")

    def name(self, image: str, snapshot: str | None = None) -> str:
        return f"diffs/{image}" + (f"@{snapshot}" if snapshot else "")

    def export(self, *words: str) -> bytes:
        path = self.path()
        self.run(*words, str(path))
        return path.read_bytes()


@pytest.fixture(scope="module")
def tool(ceph: CephCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    pool = Pool(ceph)
    yield Tool(ceph, pool, tmp_path_factory.mktemp("streams"))
    pool.close()


def made(write: Any, *arguments: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    write(arguments[0], out, *arguments[1:], **how)
    return out.getvalue()


def state(ioctx: Any, name: str) -> State:
    """Size and checksum at every snapshot, by librbd."""
    found: State = {}
    with real.Image(ioctx, name, read_only=True) as image:
        for snapshot in [*(one["name"] for one in image.list_snaps()), None]:
            image.set_snap(snapshot)
            found[snapshot] = image.size(), hashlib.sha256(image.read(0, image.size())).hexdigest()
    return found


def history(seed: int) -> list[Any]:
    """Writes and holes, shrunk and grown, with three snapshots at least."""
    choice = random.Random(seed)
    steps: list[Any] = []
    for number in range(3):
        for _ in range(4):
            verb = choice.choice(["write", "write", "discard", "zero", "resize"])
            place = (choice.randrange(64), choice.randint(1, 24))
            steps.append((verb, choice.randint(24, 96) if verb == "resize" else place))
        steps.append(("snap", f"s{number}"))
    return [*steps, ("write", (3, 9)), ("zero", (20, 8))]


CASES = {
    "written by us": (Layout(16, 0, 0), MAPPED, ours),
    "written by librbd": (Layout(16, 0, 0), MAPPED, real),
    "striped, without maps": (Layout(15, 1 << 13, 2), PLAIN, ours),
}


@pytest.fixture(scope="module", params=CASES)
def image(request: pytest.FixtureRequest, tool: Tool) -> str:
    layout, mask, module = CASES[request.param]
    name = tool.pool.create(layout, mask)
    with module.Image(tool.pool.ioctx, name) as opened:
        live(opened, history(sum(request.param.encode())), itertools.count())
        opened.metadata_set("key", "value")
        opened.metadata_set("conf_rbd_cache", "false")
        opened.protect_snap("s2")
    return name


def versions(tool: Tool, name: str) -> list[str | None]:
    return list(state(tool.pool.ioctx, name))


def test_raw(tool: Tool, image: str) -> None:
    ioctx = tool.pool.ioctx
    raw = tool.export("export", tool.name(image))
    with ours.Image(ioctx, image, read_only=True) as opened:
        assert made(streams.export_image, opened) == raw
        path = tool.path()
        with path.open("wb") as file:
            streams.export_image(opened, file)
        assert path.read_bytes() == raw
        opened.set_snap("s1")
        assert made(streams.export_image, opened) == tool.export("export", tool.name(image, "s1"))
    copy, again = tool.pool.new_name(), tool.pool.new_name()
    with path.open("rb") as file:
        streams.import_image(ioctx, copy, file, order=14)
    streams.import_image(ioctx, again, io.BufferedReader(Unseekable(raw)))
    assert state(ioctx, copy) == state(ioctx, again) == {None: state(ioctx, image)[None]}


class Unseekable(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)


def test_with_snapshots(tool: Tool, image: str) -> None:
    ioctx = tool.pool.ioctx
    theirs = tool.export("export", "--export-format", "2", tool.name(image))
    with ours.Image(ioctx, image) as opened:
        mine = made(streams.export_image, opened, export_format=2)
    assert mine == theirs.replace(OLD_PROTECTION, PROTECTION)
    copy, again = tool.pool.new_name(), tool.pool.new_name()
    streams.import_image(ioctx, copy, io.BytesIO(theirs), export_format=2)
    tool.run("import", "--export-format", "2", str(tool.path(mine)), tool.name(again))
    assert state(ioctx, copy) == state(ioctx, again) == state(ioctx, image)
    for name in (copy, again):
        with real.Image(ioctx, name) as opened:
            assert dict(opened.metadata_list()) == {"key": "value", "conf_rbd_cache": "false"}
            assert [snap for snap in ("s0", "s1", "s2") if opened.is_protected_snap(snap)] == ["s2"]


def test_with_snapshots_up_to_one(tool: Tool, image: str) -> None:
    """At a snapshot we export what was there then; the tool would export all there is now."""
    ioctx, name = tool.pool.ioctx, tool.pool.new_name()
    with ours.Image(ioctx, image, "s1") as opened:
        streams.import_image(ioctx, name, io.BytesIO(made(streams.export_image, opened, export_format=2)), export_format=2)
    expected = state(ioctx, image)
    assert state(ioctx, name) == {"s0": expected["s0"], "s1": expected["s1"], None: expected["s1"]}


def test_differences(tool: Tool, image: str) -> None:
    """Each is the same; those from one snapshot to the next make a copy of it all, whoever applies them."""
    ioctx = tool.pool.ioctx
    names = versions(tool, image)
    chain: list[bytes] = []
    for place, until in enumerate(names):
        with ours.Image(ioctx, image, until) as opened:
            starts = [None, *names[:place]]
            for since, whole in [*((since, False) for since in starts), (starts[-1], True)]:
                words = [*(["--from-snap", since] if since else []), *(["--whole-object"] if whole else [])]
                theirs = tool.export("export-diff", *words, tool.name(image, until))
                mine = made(streams.export_diff, opened, since, whole)
                # An older tool cuts the changes up otherwise: then what comes of ours tells.
                assert mine == theirs or told(CUT_OFF), (since, until, whole)
                if not whole and since == ([None, *names][place]):
                    chain.append(mine)
    copy, again = tool.pool.new_name(), tool.pool.new_name()
    for name in (copy, again):
        ours.RBD().create(ioctx, name, 1, 14)
    for difference in chain:
        with ours.Image(ioctx, copy) as opened:
            streams.import_diff(opened, io.BytesIO(difference))
        tool.run("import-diff", str(tool.path(difference)), tool.name(again))
    assert state(ioctx, copy) == state(ioctx, again) == state(ioctx, image)


def test_merged_differences(tool: Tool, image: str) -> None:
    names = versions(tool, image)
    parts: dict[tuple[str | None, str | None], bytes] = {}
    for since, until in [(None, "s0"), ("s0", "s1"), ("s1", "s2"), ("s2", None), ("s0", "s2"), ("s1", None)]:
        assert until in names
        with ours.Image(tool.pool.ioctx, image, until) as opened:
            parts[since, until] = made(streams.export_diff, opened, since)
    for (since, middle), (also, until) in itertools.permutations(parts, 2):
        if middle is not None and middle == also:
            out = io.BytesIO()
            first, second = parts[since, middle], parts[also, until]
            streams.merge_diff(io.BytesIO(first), io.BytesIO(second), out)
            paths = [str(tool.path(first)), str(tool.path(second))]
            assert out.getvalue() == tool.export("merge-diff", *paths)


def test_what_does_not_fit_changes_nothing(tool: Tool, image: str) -> None:
    ioctx = tool.pool.ioctx
    with ours.Image(ioctx, image, "s1") as opened:
        difference = made(streams.export_diff, opened, "s0")
        with pytest.raises(ours.ReadOnlyImage):
            streams.import_diff(opened, io.BytesIO(difference))
        with pytest.raises(ours.InvalidArgument):
            streams.export_diff(opened, io.BytesIO(), "s2")
        with pytest.raises(ours.ImageNotFound):
            streams.export_diff(opened, io.BytesIO(), "s9")
    before = state(ioctx, image)
    with ours.Image(ioctx, image) as opened, pytest.raises(ours.ImageExists):
        streams.import_diff(opened, io.BytesIO(difference))
    assert state(ioctx, image) == before
    empty = tool.pool.create(Layout(14, 0, 0), MAPPED)
    with ours.Image(ioctx, empty) as opened, pytest.raises(ours.InvalidArgument, match="importing difference"):
        streams.import_diff(opened, io.BytesIO(difference))
    assert list(state(ioctx, empty)) == [None]
    cut = made(streams.export_image, ours.Image(ioctx, image), export_format=2)[:-5]
    name = tool.pool.new_name()
    with pytest.raises(streams.StreamError):
        streams.import_image(ioctx, name, io.BytesIO(cut), export_format=2)
    assert name not in real.RBD().list(ioctx)
