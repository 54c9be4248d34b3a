"""The asynchronous half of the `rados`-shaped Ioctx.

An operation is done where it is submitted; what comes later, and in another thread, is its callback, as with
python-rados. Only notifications are really waited for.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

from rbd_native.embedded.rados_base import LIBRADOS_OPERATION_NOFLAG, IoctxBase
from rbd_native.embedded.rados_ops import Completion, ReadOp, WriteOp, blob, text, unsigned
from rbd_native.engine import PENDING
from rbd_native.interrupts import DEFERRED
from rbd_native.rados import port
from rbd_native.rados.port import Outcome, Reply

Callback = Callable[..., Any]


class AioIoctx(IoctxBase):
    def _submit(
        self,
        oncomplete: Callback | None,
        onsafe: Callback | None,
        do: Callable[[], Reply],
        outputs: Callable[[Reply], tuple[int, tuple[Any, ...]]] = lambda reply: (reply.rv, ()),
    ) -> Completion:
        """`outputs`: the completion's return value, and what its callback gets besides the completion."""
        self.require_ioctx_open()
        with DEFERRED:
            completion = Completion(self, oncomplete, onsafe)
            with self.lock:
                self.complete_completions.append(completion)
            value, arguments = outputs(do())
            self._post(completion, value, arguments)
        return completion

    def _post(self, completion: Completion, value: int, arguments: tuple[Any, ...]) -> None:
        def finish() -> None:
            try:
                completion.finish(value, *arguments)
            finally:
                with self.lock:
                    self.complete_completions.remove(completion)

        self.rados.dispatcher.post(finish)

    def aio_write(
        self,
        object_name: str,
        to_write: bytes,
        offset: int = 0,
        oncomplete: Callback | None = None,
        onsafe: Callback | None = None,
    ) -> Completion:
        step = port.Write(unsigned(offset), blob(to_write, "to_write"))
        return self._change(object_name, step, oncomplete, onsafe)

    def aio_write_full(
        self, object_name: str, to_write: bytes, oncomplete: Callback | None = None, onsafe: Callback | None = None
    ) -> Completion:
        return self._change(object_name, port.WriteFull(blob(to_write, "to_write")), oncomplete, onsafe)

    def aio_writesame(
        self, object_name: str, to_write: bytes, write_len: int, offset: int = 0, oncomplete: Callback | None = None
    ) -> Completion:
        step = port.WriteSame(unsigned(offset), unsigned(write_len), blob(to_write, "to_write"))
        return self._change(object_name, step, oncomplete, None)

    def aio_append(
        self, object_name: str, to_append: bytes, oncomplete: Callback | None = None, onsafe: Callback | None = None
    ) -> Completion:
        return self._change(object_name, port.Append(blob(to_append, "to_append")), oncomplete, onsafe)

    def aio_remove(
        self, object_name: str, oncomplete: Callback | None = None, onsafe: Callback | None = None
    ) -> Completion:
        return self._change(object_name, port.Remove(), oncomplete, onsafe)

    def aio_setxattr(
        self, object_name: str, xattr_name: str, xattr_value: bytes, oncomplete: Callback | None = None
    ) -> Completion:
        step = port.SetXattr(text(xattr_name, "xattr_name"), blob(xattr_value, "xattr_value"))
        return self._change(object_name, step, oncomplete, None)

    def aio_rmxattr(self, object_name: str, xattr_name: str, oncomplete: Callback | None = None) -> Completion:
        return self._change(object_name, port.RmXattr(text(xattr_name, "xattr_name")), oncomplete, None)

    def _change(self, oid: str, step: Any, oncomplete: Callback | None, onsafe: Callback | None) -> Completion:
        name = text(oid, "object_name")
        return self._submit(oncomplete, onsafe, lambda: self._write(name, (step,)))

    def aio_read(self, object_name: str, length: int, offset: int, oncomplete: Callback | None = None) -> Completion:
        """oncomplete(completion, data), data None where it failed."""
        step = port.Read(unsigned(offset), unsigned(length)) if length else port.Stat()
        name = text(object_name, "object_name")

        def outputs(reply: Reply) -> tuple[int, tuple[Any, ...]]:
            if reply.rv < 0:
                return reply.rv, (None,)
            data = reply.outs[0] if length else b""
            return len(data), (data,)

        return self._submit(oncomplete, None, lambda: self._read(name, (step,)), outputs)

    def aio_stat(self, object_name: str, oncomplete: Callback) -> Completion:
        """oncomplete(completion, size, mtime), both None where it failed."""
        name = text(object_name, "object_name")

        def outputs(reply: Reply) -> tuple[int, tuple[Any, ...]]:
            if reply.rv < 0:
                return reply.rv, (None, None)
            return 0, (reply.outs[0].size, time.localtime(int(reply.outs[0].mtime)))

        return self._submit(oncomplete, None, lambda: self._read(name, (port.Stat(),)), outputs)

    def aio_cmpext(
        self, object_name: str, cmp_buf: bytes, offset: int = 0, oncomplete: Callback | None = None
    ) -> Completion:
        step = port.CmpExt(unsigned(offset), blob(cmp_buf, "cmp_buf"))
        name = text(object_name, "object_name")
        return self._submit(oncomplete, None, lambda: self._read(name, (step,)))

    def aio_execute(
        self,
        object_name: str,
        cls: str,
        method: str,
        data: bytes,
        length: int = 8192,
        oncomplete: Callback | None = None,
        onsafe: Callback | None = None,
    ) -> Completion:
        """oncomplete(completion, output), None where it failed; more output than `length` is ERANGE."""
        step = port.Exec(text(cls, "cls"), text(method, "method"), blob(data, "data"))
        name = text(object_name, "object_name")

        def outputs(reply: Reply) -> tuple[int, tuple[Any, ...]]:
            if reply.rv < 0:
                return reply.rv, (None,)
            output = reply.outs[0]
            return (len(output), (output,)) if len(output) <= length else (-errno.ERANGE, (None,))

        return self._submit(oncomplete, onsafe, lambda: self._read(name, (step,)), outputs)

    def operate_aio_write_op(
        self,
        write_op: WriteOp,
        oid: str,
        oncomplete: Callback | None = None,
        onsafe: Callback | None = None,
        mtime: int = 0,
        flags: int = LIBRADOS_OPERATION_NOFLAG,
    ) -> Completion:
        self.require_ioctx_open()
        name, steps = text(oid, "oid"), write_op.send()
        return self._submit(oncomplete, onsafe, lambda: self._write(name, steps, mtime * 10**9))

    def operate_aio_read_op(
        self,
        read_op: ReadOp,
        oid: str,
        oncomplete: Callback | None = None,
        onsafe: Callback | None = None,
        flag: int = LIBRADOS_OPERATION_NOFLAG,
    ) -> Completion:
        self.require_ioctx_open()
        name, steps = text(oid, "oid"), read_op.send()

        def outputs(reply: Reply) -> tuple[int, tuple[Any, ...]]:
            if reply.rv >= 0:
                read_op.take(reply.outs)
            return reply.rv, ()

        return self._submit(oncomplete, onsafe, lambda: self._read(name, steps), outputs)

    def aio_notify(
        self,
        obj: str,
        oncomplete: Callable[[Completion, int, list[Any] | None, list[Any] | None], None],
        msg: str = "",
        timeout_ms: int = 5000,
    ) -> Completion:
        """oncomplete(completion, rv, acks, timeouts): acks as (client, cookie, reply), '' for an empty reply; both
        lists None where it failed or somebody did not answer in time (rv -110)."""
        self.require_ioctx_open()
        call = self._notify_call(text(obj, "obj"), text(msg, "msg").encode(), timeout_ms)
        completion = Completion(self, oncomplete)
        with self.lock:
            self.complete_completions.append(completion)

        def finish(outcome: Outcome) -> None:
            self._post(completion, *_notified(outcome))

        with DEFERRED:
            outcome = call.start(finish)
            if outcome is not PENDING:
                finish(outcome)
        return completion

    def _notify_call(self, oid: str, payload: bytes, timeout_ms: int) -> port.Call:
        seconds = timeout_ms // 1000 or self._io.cluster.seconds("osd_default_notify_timeout")
        if timeout_ms == 0:
            seconds = self._io.cluster.seconds("client_notify_timeout")
        return self._io.notify(oid, payload, seconds * 1000)

    def aio_flush(self) -> None:
        """Every operation is over when its call returns: there is nothing to wait for."""
        self.require_ioctx_open()


def _notified(outcome: Outcome) -> tuple[int, tuple[Any, ...]]:
    rv = outcome.rv if outcome.rv < 0 else -errno.ETIMEDOUT if outcome.value.timeouts else 0
    if rv < 0:
        return rv, (rv, None, None)
    acks = [(client, cookie, reply or "") for client, cookie, reply in outcome.value.acks]
    return 0, (0, acks, [])
