"""Make two sites peers of each other with a token that one of them gives and the other takes.

The token is base64 of a JSON object: `fsid` of the cluster, `client_id` and `key` of a user that may mirror, and `mon_host`
where to find the cluster. The user is made the first time one is asked for; the monitor's key store has its name. Whoever
takes the token connects with it, and enters each site in the other's pool of the same name.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import json
from typing import Final, NamedTuple

from rbd_native.operations import mirror_peers, mirror_pool, mirroring
from rbd_native.rados.port import Cluster, Io, RadosError
from rbd_native.types import MirrorMode, MirrorPeerDirection

_CLIENT_KEY: Final = "rbd/mirror/peer_client_id"
_CLIENT: Final = "rbd-mirror-peer"
_CAPS: Final = ["mon", "profile rbd-mirror-peer", "osd", "profile rbd"]
_RECEIVING: Final = (MirrorPeerDirection.RX, MirrorPeerDirection.RX_TX)


class Token(NamedTuple):
    fsid: str
    client_id: str
    key: str
    mon_host: str


async def create(io: Io) -> str:
    """EINVAL while the pool is not mirrored; EEXIST where the user is there and may do something else; EACCES."""
    if await mirroring.mode(io) == MirrorMode.DISABLED:
        raise RadosError(errno.EINVAL, "the pool is not mirrored")
    token = await _ourselves(io.cluster)
    return base64.b64encode(json.dumps(token._asdict(), separators=(",", ":"), ensure_ascii=False).encode()).decode()


async def _ourselves(cluster: Cluster) -> Token:
    client, key = await _user(cluster)
    return Token(cluster.fsid(), client, key, await _addresses(cluster))


async def _user(cluster: Cluster) -> tuple[str, str]:
    """Name and key of the user for peers."""
    name = (await mirror_peers.key_get(cluster, _CLIENT_KEY)).decode("utf-8", "surrogateescape")
    if not name:
        name = _CLIENT
        await mirror_peers.key_set(cluster, _CLIENT_KEY, name)
    command = {"prefix": "auth get-or-create", "entity": f"client.{name}", "caps": _CAPS, "format": "json"}
    try:
        answer: bytes = await cluster.mon_command(command)
    except RadosError as error:
        if error.errno == errno.EINVAL:
            raise RadosError(errno.EEXIST, f"client.{name} has other capabilities") from error
        raise
    try:
        return name, str(json.loads(answer)[0]["key"])
    except (ValueError, LookupError, TypeError) as error:
        raise RadosError(errno.EBADMSG, f"auth get-or-create: {error}") from error


async def _addresses(cluster: Cluster) -> str:
    """Of the monitors, in the notation of the option mon_host."""
    answer: bytes = await cluster.mon_command({"prefix": "mon dump", "format": "json"})
    try:
        vectors = [mon["public_addrs"]["addrvec"] for mon in json.loads(answer)["mons"]]
        return ",".join("[" + ",".join(f"{a['type']}:{a['addr']}/{a['nonce']}" for a in vector) + "]" for vector in vectors)
    except (ValueError, LookupError, TypeError) as error:
        raise RadosError(errno.EBADMSG, f"mon dump: {error}") from error


# --- taking one ------------------------------------------------------------------------------------------------------


def parse(text: str) -> Token:
    """EINVAL."""
    try:
        raw = base64.b64decode("".join(text.split("\n")), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RadosError(errno.EINVAL, f"token: {error}") from error
    try:
        found = json.loads(raw.decode("utf-8", "surrogateescape"), strict=False)
        token = Token(*(found[field] for field in Token._fields))
    except (ValueError, LookupError, TypeError) as error:
        raise RadosError(errno.EINVAL, f"token: {error}") from error
    if not all(isinstance(value, str) for value in token):
        raise RadosError(errno.EINVAL, "token: not all of it is text")
    return token


async def import_token(io: Io, direction: int, text: str) -> None:
    """EINVAL (direction or token; it is of this cluster, or one of the same name; there is another peer), ENOENT (no such
    pool there), ENOSYS (it is not mirrored there), and what connecting fails with."""
    if direction not in _RECEIVING:
        raise RadosError(errno.EINVAL, f"direction {direction}")
    token = parse(text)
    here = await mirror_peers.site_name(io.cluster)
    remote: Cluster = await io.cluster.connect(token.client_id, {"mon_host": token.mon_host, "key": token.key})
    try:
        await _introduce(io, remote, MirrorPeerDirection(direction), token, here)
    finally:
        await remote.disconnect()


async def _introduce(io: Io, remote: Cluster, direction: MirrorPeerDirection, token: Token, here: str) -> None:
    fsid = remote.fsid()
    if fsid == io.cluster.fsid() or fsid != token.fsid:
        raise RadosError(errno.EINVAL, f"the token leads to cluster {fsid}")
    there = await mirror_peers.site_name(remote)
    if here == there:
        raise RadosError(errno.EINVAL, f"both sites are called {here}")
    pool = remote.io(await remote.pool_lookup(await io.cluster.pool_name(io.pool_id)))
    mode = await mirroring.mode(pool)
    if mode == MirrorMode.DISABLED:
        raise RadosError(errno.ENOSYS, f"the pool is not mirrored at {there}")
    if await mirroring.mode(io) == MirrorMode.DISABLED:
        await mirror_pool.set_mode(io, mode)
    if direction == MirrorPeerDirection.RX_TX:
        await _enter(pool, direction, here, await _ourselves(io.cluster))
    await _enter(io, direction, there, token)


async def _enter(io: Io, direction: MirrorPeerDirection, site: str, token: Token) -> None:
    """Make a site a peer of a pool. EINVAL where the pool has another."""
    known = await mirroring.peers(io)
    if not known:
        uuid = await mirror_peers.add(io, direction, site, f"client.{token.client_id}")
    elif known[0].site_name not in (site, token.fsid):
        raise RadosError(errno.EINVAL, "the pool has another peer")
    else:
        uuid = known[0].uuid
        if known[0].site_name != site:
            with contextlib.suppress(RadosError):  # it is found by its id as well
                await mirror_peers.set_site(io, uuid, site)
    await mirror_peers.set_attributes(io, uuid, {"mon_host": token.mon_host, "key": token.key})
