"""The threads of an embedded client, at the moments that matter."""

import threading

from rbd_native import embedded
from rbd_native.embedded import watches
from rbd_native.rados.port import Outcome


def test_a_watch_is_not_lost_while_it_is_being_registered() -> None:
    """The looking thread may come by before the store has the watch that the client has noted already."""
    errors: list[int] = []
    with embedded.Cluster() as cluster, embedded.Rados(cluster=cluster) as client, client.open_ioctx("rbd") as ioctx:
        ioctx.write_full("object", b"")
        connection = cluster.connect()
        io = connection.io(ioctx.get_pool_id())
        events = connection.events

        def insert(cookie: int, timeout: int) -> Outcome:
            looking = threading.Thread(target=events._see_to_all)
            looking.start()
            looking.join()
            with cluster.store.write as db:
                watches.add(db, io._find(db, "object").id, connection.entity, cookie, timeout)
            return Outcome(0)

        watch = events.watch(lambda *_: b"", errors.append, 30, insert).value
        assert watch.check().rv == 0
        watch.close().block()
        with cluster.store.read as db:
            assert watches.cookies(db, connection.entity.client) == set()
        assert errors == []
