"""Faults on demand, for tests of what happens when things go wrong.

    faults = Faults()
    io = wrap(io, faults)
    faults.crash(at=5)                                   # the sixth request is never sent, nor any after it
    faults.fail(errno.EIO, when=touching("rbd_header.*", "write"))

A client that has crashed raises :class:`Crashed` wherever it asks for anything: its `finally` blocks run, but reach
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from rbd_native.engine import PENDING, Failure, Resume, Suspension
from rbd_native.native import threading
from rbd_native.rados import port
from rbd_native.rados.port import Call, Operation, Outcome, Reply
from rbd_native.rados.wrapper import Interceptor, Request

Predicate = Callable[[Request], bool]


class Crashed(Exception):
    """The client asking is gone: what it asks for is not done, and no answer will come."""


def touching(oid: str = "*", kind: str = "*", step: type | None = None) -> Predicate:
    """Requests for objects of such names (with `*` and `?`), of such kinds, with a step of this type."""

    def matches(request: Request) -> bool:
        if not (fnmatchcase(request.oid, oid) and fnmatchcase(request.kind, kind)):
            return False
        return step is None or any(
            isinstance(part.step if isinstance(part, port.FailOk) else part, step) for part in request.steps
        )

    return matches


def anything(request: Request) -> bool:
    """Every request."""
    return True


class _Rule(NamedTuple):
    at: int | None
    when: Predicate
    times: list[int]  # how often it still applies, in a list of one: rules are values, this changes
    code: int | None  # None: crash
    sent: bool


class Faults(Interceptor):
    """Counts requests from 0 as they are sent, those that `counted` says; the others have no number, and pass.

    `on_crash` is called once when the client crashes: to end its connection, where there is a way.
    """

    def __init__(self, counted: Predicate = anything, on_crash: Callable[[], None] | None = None) -> None:
        self.sent = 0
        self.crashed = False
        self._counted = counted
        self._on_crash = on_crash
        self._rules: list[_Rule] = []
        self._guard = threading.Lock()

    def crash(self, at: int | None = None, when: Predicate = anything, *, sent: bool = False) -> None:
        """Crash at request number `at`, or at the first that matches. With `sent`, it is done, but not answered."""
        self._rules.append(_Rule(at, when, [1], None, sent))

    def fail(
        self,
        code: int,
        at: int | None = None,
        when: Predicate = anything,
        *,
        times: int = 1,
        sent: bool = False,
    ) -> None:
        """Answer -`code` to request number `at`, or to the next `times` that match. With `sent`, it is done as well."""
        self._rules.append(_Rule(at, when, [times], code, sent))

    def operation(self, request: Request, inner: Operation) -> Operation:
        return _FaultyOperation(self, request, inner)

    def call(self, request: Request, inner: Call) -> Call:
        return _FaultyCall(self, request, inner)

    def hears(self) -> bool:
        return not self.crashed

    def sleep(self, seconds: float, inner: Suspension) -> Suspension:
        self._check()
        return inner

    def next_rule(self, request: Request) -> _Rule | None:
        """Number a request that is about to be sent, and find what is to go wrong with it. Crashed where that is all."""
        with self._guard:
            self._check()
            if not self._counted(request):
                return None
            number, self.sent = self.sent, self.sent + 1
            rule = next((rule for rule in self._rules if _applies(rule, number, request)), None)
        if rule is not None and rule.code is None and not rule.sent:
            self.cut_off()
            self._check()
        return rule

    def cut_off(self) -> None:
        """Crash now."""
        with self._guard:
            again, self.crashed = self.crashed, True
        if self._on_crash is not None and not again:
            self._on_crash()

    def _check(self) -> None:
        if self.crashed:
            raise Crashed


def _applies(rule: _Rule, number: int, request: Request) -> bool:
    if not rule.times[0] or (rule.at is not None and rule.at != number) or not rule.when(request):
        return False
    rule.times[0] -= 1
    return True


class _Faulty:
    __slots__ = ()

    _faults: Faults
    _request: Request
    _inner: Any

    def start(self, resume: Resume) -> Any:
        rule = self._faults.next_rule(self._request)
        if rule is not None and not rule.sent:
            return self._answer(rule.code)
        result = self._inner.start(lambda result: resume(self._judged(result, rule)))
        return result if result is PENDING else self._judged(result, rule)

    def block(self) -> Any:
        rule = self._faults.next_rule(self._request)
        if rule is not None and not rule.sent:
            return self._answer(rule.code)
        result = self._judged(self._inner.block(), rule)
        if isinstance(result, Failure):
            raise result.error
        return result

    def _judged(self, result: Any, rule: _Rule | None) -> Any:
        """What the client sees of a result that has come."""
        if rule is not None and rule.code is None:
            self._faults.cut_off()
        if self._faults.crashed:
            return Failure(Crashed())
        return result if rule is None else self._answer(rule.code)

    def _answer(self, code: int | None) -> Any:
        raise NotImplementedError


class _FaultyOperation(_Faulty, Operation):
    __slots__ = ("_faults", "_inner", "_request")

    def __init__(self, faults: Faults, request: Request, inner: Operation) -> None:
        super().__init__(request.oid)
        self._faults = faults
        self._request = request
        self._inner = inner

    def _answer(self, code: int | None) -> Reply:
        return Reply(-(code or 0))


class _FaultyCall(_Faulty, Call):
    __slots__ = ("_faults", "_inner", "_request", "what")

    def __init__(self, faults: Faults, request: Request, inner: Call) -> None:
        self._faults = faults
        self._request = request
        self._inner = inner
        self.what = inner.what

    def _answer(self, code: int | None) -> Outcome:
        return Outcome(-(code or 0))
