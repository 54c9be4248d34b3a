"""Watch and notify."""

from __future__ import annotations

import errno
import queue
import threading
import time
from typing import Any

import pytest

from rbd_native.rados.port import Capability, Create, Io, ListWatchers, Remove, Watch
from rbd_native.testing.contract.base import PATIENCE, Contract, Do, NewIo, able, blocking


def _silent(client: int, notify_id: int, payload: bytes) -> bytes:
    return b""


def _content(code: int) -> None:
    """Losing a watch is no surprise here."""


class WatchContract(Contract):
    @pytest.fixture
    def header(self, io: Io, oid: str) -> str:
        """An object to watch."""
        blocking(io.write(oid, [Create()]))
        return oid

    def watched(self, do: Do, io: Io, oid: str, *handlers: Any, **kwargs: Any) -> Watch:
        handlers = (*handlers, *(_silent, _content)[len(handlers) :])
        outcome = do(io.watch(oid, *handlers, **kwargs))
        assert outcome.rv == 0, outcome
        watch: Watch = outcome.value
        return watch

    def payload(self, io: Io, data: bytes) -> bytes:
        return data if able(io, Capability.BINARY_NOTIFY) else data.decode("latin-1").encode("ascii", "replace")

    def test_notify_reaches_every_watcher_and_brings_back_replies(self, io: Io, new_io: NewIo, do: Do, header: str) -> None:
        other, third = new_io(), new_io()
        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def handler(name: bytes) -> Any:
            def notified(client: int, notify_id: int, payload: bytes) -> bytes:
                heard.put((name, client, payload))
                return name + payload

            return notified

        payload = self.payload(io, b"\0\xff\x80 anything")
        one = self.watched(do, io, header, handler(b"one"))
        two = self.watched(do, other, header, handler(b"\0two"))
        outcome = do(third.notify(header, payload, 5000))
        assert outcome.rv == 0
        assert outcome.value.timeouts == []
        assert sorted(outcome.value.acks) == sorted(
            [
                (io.cluster.instance_id(), one.cookie, b"one" + payload),
                (other.cluster.instance_id(), two.cookie, b"\0two" + payload),
            ]
        )
        notifier = third.cluster.instance_id()
        assert sorted(heard.get(timeout=PATIENCE) for _ in range(2)) == [
            (b"\0two", notifier, payload),
            (b"one", notifier, payload),
        ]
        for watch in (one, two):
            assert do(watch.close()).rv == 0

    def test_the_notifier_hears_itself(self, io: Io, do: Do, header: str) -> None:
        watch = self.watched(do, io, header, lambda client, notify_id, payload: b"self")
        acks = do(io.notify(header, b"", 5000)).value.acks
        assert acks == [(io.cluster.instance_id(), watch.cookie, b"self")]
        do(watch.close())

    def test_two_watches_of_one_client(self, io: Io, do: Do, header: str) -> None:
        one = self.watched(do, io, header, lambda *_: b"1")
        two = self.watched(do, io, header, lambda *_: b"2")
        assert one.cookie != two.cookie
        acks = do(io.notify(header, b"x", 5000)).value.acks
        assert sorted(reply for _, _, reply in acks) == [b"1", b"2"]
        do(one.close())
        assert [reply for _, _, reply in do(io.notify(header, b"x", 5000)).value.acks] == [b"2"]
        do(two.close())

    def test_nobody_watches(self, io: Io, do: Do, header: str) -> None:
        outcome = do(io.notify(header, b"x", 5000))
        assert (outcome.rv, outcome.value) == (0, ([], []))

    def test_a_missing_object(self, io: Io, do: Do, oid: str) -> None:
        assert do(io.watch(oid, _silent, _content)).rv == -errno.ENOENT
        assert do(io.notify(oid, b"x", 5000)).rv == -errno.ENOENT

    def test_a_large_reply(self, io: Io, do: Do, header: str) -> None:
        big = bytes(range(128)) * 512
        watch = self.watched(do, io, header, lambda client, notify_id, payload: payload + payload)
        assert do(io.notify(header, big, 5000)).value.acks[0][2] == big + big
        do(watch.close())

    def test_a_handler_that_raises_has_answered_all_the_same(
        self, io: Io, do: Do, header: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(client: int, notify_id: int, payload: bytes) -> bytes:
            raise ZeroDivisionError

        watch = self.watched(do, io, header, broken)
        began = time.monotonic()
        outcome = do(io.notify(header, b"x", 30000))
        assert outcome.value.acks == [(io.cluster.instance_id(), watch.cookie, b"")]
        assert time.monotonic() - began < 10
        assert "ZeroDivisionError" in caplog.text
        do(watch.close())

    def test_who_does_not_answer_in_time(self, io: Io, new_io: NewIo, do: Do, header: str) -> None:
        slow = new_io()
        over = threading.Event()

        def dawdle(client: int, notify_id: int, payload: bytes) -> bytes:
            over.wait(2.5)
            return b"late"

        quick = self.watched(do, io, header, lambda *_: b"quick")
        late = self.watched(do, slow, header, dawdle)
        outcome = do(io.notify(header, b"x", 300))  # less than the second that the protocol can say
        over.set()
        if able(io, Capability.BINARY_NOTIFY):
            assert outcome.rv == 0
            assert outcome.value.acks == [(io.cluster.instance_id(), quick.cookie, b"quick")]
            assert outcome.value.timeouts == [(slow.cluster.instance_id(), late.cookie)]
        else:
            assert outcome.rv == -errno.ETIMEDOUT
        do(quick.close())
        do(late.close())

    def test_watchers_are_listed(self, io: Io, new_io: NewIo, do: Do, header: str) -> None:
        other = new_io()
        assert do(io.read(header, [ListWatchers()])).outs == ([],)
        one = self.watched(do, io, header)
        two = self.watched(do, other, header, timeout=77)
        found = sorted(do(io.read(header, [ListWatchers()])).outs[0], key=lambda watcher: watcher.timeout)
        if able(io, Capability.LIST_WATCHERS):
            assert found == [
                (io.cluster.address(), io.cluster.instance_id(), one.cookie, 30),
                (other.cluster.address(), other.cluster.instance_id(), two.cookie, 77),
            ]
        assert {(watcher.client, watcher.cookie) for watcher in found} == {
            (io.cluster.instance_id(), one.cookie),
            (other.cluster.instance_id(), two.cookie),
        }
        do(one.close())
        do(two.close())
        assert do(io.read(header, [ListWatchers()])).outs == ([],)
        assert do(io.read(header + ".no", [ListWatchers()])).rv == -errno.ENOENT

    def test_after_closing_nothing_comes(self, io: Io, do: Do, header: str) -> None:
        heard: list[bytes] = []

        def notified(client: int, notify_id: int, payload: bytes) -> bytes:
            heard.append(payload)
            return b""

        watch = self.watched(do, io, header, notified)
        do(io.notify(header, b"first", 5000))
        assert do(watch.close()).rv == 0
        assert do(io.notify(header, b"second", 5000)).value == ([], [])
        assert heard == [b"first"]
        assert do(watch.close()).rv == 0

    def test_check(self, io: Io, do: Do, header: str) -> None:
        watch = self.watched(do, io, header)
        outcome = watch.check()
        assert outcome.rv == 0
        assert 0 <= outcome.value < 30
        do(watch.close())
        assert watch.check().rv == -errno.ENOTCONN

    def test_removing_the_object_loses_the_watch(self, io: Io, do: Do, header: str) -> None:
        lost: queue.SimpleQueue[int] = queue.SimpleQueue()
        watch = self.watched(do, io, header, _silent, lost.put)
        do(io.write(header, [Remove()]))
        assert lost.get(timeout=PATIENCE) == errno.ENOTCONN
        assert watch.check().rv == -errno.ENOTCONN
        do(watch.close())

    def test_closing_in_the_callback(self, io: Io, new_io: NewIo, do: Do, header: str) -> None:
        closed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        watches: list[Watch] = []

        def notified(client: int, notify_id: int, payload: bytes) -> bytes:
            outcome = watches[0].close().start(closed.put)
            if hasattr(outcome, "rv"):
                closed.put(outcome)
            return b"bye"

        watches.append(self.watched(do, io, header, notified))
        outcome = do(new_io().notify(header, b"x", 5000))
        assert outcome.rv == 0
        assert closed.get(timeout=PATIENCE).rv == 0
        assert do(io.notify(header, b"x", 5000)).value == ([], [])

    def test_closing_waits_for_the_callback(self, io: Io, new_io: NewIo, do: Do, header: str) -> None:
        other = new_io()
        inside, answered = threading.Event(), threading.Event()

        def notified(client: int, notify_id: int, payload: bytes) -> bytes:
            inside.set()
            time.sleep(0.3)
            answered.set()
            return b""

        watch = self.watched(do, io, header, notified)
        notifier = threading.Thread(target=lambda: blocking(other.notify(header, b"x", 5000)))
        notifier.start()
        assert inside.wait(PATIENCE)
        assert do(watch.close()).rv == 0
        assert answered.is_set()
        notifier.join()

    def test_notifications_come_one_at_a_time(self, io: Io, new_io: NewIo, do: Do, header: str) -> None:
        from rbd_native.engine import gather

        inside: list[int] = []
        most: list[int] = []

        def notified(client: int, notify_id: int, payload: bytes) -> bytes:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()
            return payload

        watch = self.watched(do, io, header, notified)
        other = new_io()

        async def notify(number: int) -> Any:
            return await other.notify(header, b"%d" % number, 20000)

        replies = do(gather((notify(number) for number in range(20)), 8))
        assert [reply.acks[0][2] for reply in replies] == [b"%d" % number for number in range(20)]
        assert set(most) == {1}
        do(watch.close())
