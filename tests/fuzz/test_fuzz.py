"""The fuzzer in its short form; and that it finds what is wrong: a rule, or a byte, that is other than what comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import CephCluster
from tests.fuzz.history import Content
from tests.fuzz.judge import Explanation, Judged
from tests.fuzz.plan_more import FullPlan
from tests.fuzz.runner import Runner, Script
from tests.fuzz.shorten import Shortener
from tests.fuzz.stage import Finding, Made
from tests.fuzz.state import Handle, Img, State

STEPS = 30
# Deaths take the time that the cluster needs to notice them: they are for the long runs.
QUICK = "data burst crowd locks reopen snaps clones copies names groups features diffs metadata whole sweep odd".split()


@pytest.fixture(scope="module")
def runner(ceph: CephCluster) -> Iterator[Runner]:
    made = Runner(ceph.conf)
    yield made
    made.close()


@pytest.mark.ceph
@pytest.mark.parametrize(("seed", "features"), [(1, 61), (2, 1), (3, 5), (4, 13)])
def test_some_seeds(runner: Runner, seed: int, features: int) -> None:
    steps = FullPlan(seed, features, themes=dict.fromkeys(QUICK, 1.0)).make(STEPS)
    finding = runner.run(Script(seed, features, seed % 2 == 0, steps))
    if finding is not None and finding.ours:
        pytest.fail(f"{finding}\n" + "\n".join(runner.log[-40:]))


def test_a_seed_is_a_script() -> None:
    assert FullPlan(7, 61).make(60) == FullPlan(7, 61).make(60)
    assert FullPlan(7, 61).make(60) != FullPlan(8, 61).make(60)


# --- the model -------------------------------------------------------------------------------------------------------


def test_bytes_that_overlap() -> None:
    content = Content(8)
    content.add(0, b"aaaa", 10, 20, "a1", "first")
    content.add(0, b"bb", 15, 25, "b1", "second")
    content.add(2, b"c", 30, 40, "a1", "third")
    after = content.possible(50, 60)
    for fine in (b"aacaaaaa"[:4], b"bbca", b"abca"):
        assert not after.wrong(fine).any()
    assert list(after.wrong(b"\0aaa")) == [True, False, True, False]
    assert not content.possible(22, 60).wrong(b"aaaa\0\0\0\0").any(), "the third may come later"
    assert content.possible(5, 8).wrong(b"a").any(), "it had not begun"


def test_unacknowledged_bytes_may_be_there() -> None:
    content = Content(4)
    content.add(0, b"aa", 10, 1 << 62, "a1", "of who was killed")
    assert not content.possible(50, 60).wrong(b"aa\0\0").any()
    assert not content.possible(50, 60).wrong(b"\0\0\0\0").any()
    content.settle()
    assert not content.possible(50, 60).wrong(b"\0\0\0\0").any()


def _judged(do: str, t0: int, t1: int, *args: Any, ok: Any = None, err: Any = None, on: str = "a1") -> Judged:
    return Judged(Made({"on": on, "do": do, "args": list(args)}, 0, 0, t0, t1, ok, err), "rbd_native", t0)


def _state() -> State:
    image = Img(1, 4096, 12, 61)
    return State(images={1: image}, names={"i": 1}, handles={"a1": Handle(1), "b1": Handle(1)})


def test_an_order_explains() -> None:
    early = _judged("Image.create_snap", 10, 30, "s")
    late = _judged("Image.create_snap", 20, 40, "s", err=("ImageExists", 17, ""), on="b1")
    (after,) = Explanation([late, early], False).run([_state()])
    assert [snap.name for snap in after.images[1].snaps] == ["s"]
    there = _judged("Image.snap_exists", 25, 28, "s", ok=True, on="b1")
    assert Explanation([early, there], False).run([_state()])


def test_no_order_explains() -> None:
    done = _judged("Image.create_snap", 10, 20, "s")
    missing = _judged("Image.snap_exists", 30, 40, "s", ok=False)
    with pytest.raises(Finding, match=r"answer Image\.snap_exists"):
        Explanation([done, missing], False).run([_state()])


def test_shortened() -> None:
    steps = [{"lanes": [[{"on": "a1", "do": str(number)}]]} for number in range(30)]
    steps[20]["lanes"][0].append({"on": "a1", "do": "needed too"})

    def fails(less: list[dict[str, Any]]) -> bool:
        calls = [call["do"] for step in less for lane in step["lanes"] for call in lane]
        return "3" in calls and "needed too" in calls

    shortest = Shortener(fails).shorten(steps)
    assert [call["do"] for step in shortest for lane in step["lanes"] for call in lane] == ["3", "needed too"]
