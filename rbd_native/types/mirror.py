"""Mirroring: the peers of a pool, its mirrored images, and what the daemons say about them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated

from rbd_native.encoding import UTime, blob, boolean, i64, since, struct, text, u8, utime
from rbd_native.types.entities import EntityInstance


class MirrorMode(IntEnum):
    DISABLED = 0
    IMAGE = 1
    POOL = 2
    INIT_ONLY = 3


class MirrorPeerDirection(IntEnum):
    RX = 0
    TX = 1
    RX_TX = 2


class MirrorImageMode(IntEnum):
    JOURNAL = 0
    SNAPSHOT = 1


class MirrorImageState(IntEnum):
    DISABLING = 0
    ENABLED = 1
    DISABLED = 2
    CREATING = 3


class MirrorImageStatusState(IntEnum):
    UNKNOWN = 0
    ERROR = 1
    SYNCING = 2
    STARTING_REPLAY = 3
    REPLAYING = 4
    STOPPING_REPLAY = 5
    STOPPED = 6


@struct(2)
class MirrorPeer:
    """Another cluster. The pool id after the client name is a remnant, always -1."""

    uuid: text
    site_name: text
    client_name: text
    pool_id: i64 = -1
    direction: Annotated[MirrorPeerDirection, u8] = since(2, default=MirrorPeerDirection.RX_TX)
    mirror_uuid: text = since(2, default="")
    last_seen: utime = since(2, default=UTime())

    @property
    def is_valid(self) -> bool:
        """Named, of a known direction, and with a client to connect as unless it is the one that connects."""
        known = isinstance(self.direction, MirrorPeerDirection)
        reachable = self.direction == MirrorPeerDirection.TX or self.client_name != ""
        return known and reachable and self.uuid != "" and self.site_name != ""


@struct(2)
class MirrorImage:
    global_id: text
    state: Annotated[MirrorImageState, u8]
    mode: Annotated[MirrorImageMode, u8] = since(2, default=MirrorImageMode.JOURNAL)


@struct(2)
class MirrorImageSiteStatus:
    """What one site says about an image. The local site has no uuid, and then the older layout without it is
    sent.
    """

    mirror_uuid: text = since(2, default="")
    state: Annotated[MirrorImageStatusState, u8] = MirrorImageStatusState.UNKNOWN
    description: text = ""
    last_update: utime = UTime()
    up: boolean = False

    def wire_version(self) -> tuple[int, int]:
        return (2, 2) if self.mirror_uuid else (1, 1)


@struct()
class SiteState:
    """A status without the name of its site."""

    state: Annotated[MirrorImageStatusState, u8]
    description: text
    last_update: utime
    up: boolean


@struct()
class RemoteSiteState:
    mirror_uuid: text
    site: SiteState


@struct(2)
class MirrorImageStatus:
    """What all sites say about an image. Without `local_valid`, `local` is a placeholder."""

    local: SiteState
    local_valid: boolean = since(2, default=True)
    remotes: list[RemoteSiteState] = since(2, factory=list)

    @classmethod
    def of(cls, sites: Iterable[MirrorImageSiteStatus]) -> MirrorImageStatus:
        states = {
            site.mirror_uuid: SiteState(site.state, site.description, site.last_update, site.up)
            for site in sites
        }
        local = states.pop("", None)
        missing = SiteState(MirrorImageStatusState.UNKNOWN, "", UTime(), False)
        return cls(local or missing, local is not None, [RemoteSiteState(*item) for item in states.items()])

    @property
    def sites(self) -> list[MirrorImageSiteStatus]:
        """The local one, where there is one, and the remote ones."""
        found = [("", self.local)] if self.local_valid else []
        found += [(remote.mirror_uuid, remote.site) for remote in self.remotes]
        return [
            MirrorImageSiteStatus(uuid, site.state, site.description, site.last_update, site.up)
            for uuid, site in found
        ]


@struct(1)
class StoredOrigin:
    """The daemon that gave a status; the type of its address is always ANY."""

    instance: EntityInstance


@struct()
class StoredSiteStatus:
    """Key `status_global_*` or `remote_status_global_*`. While the origin watches `rbd_mirroring`, the status
    is up.
    """

    origin: StoredOrigin
    status: MirrorImageSiteStatus


@struct(1)
class MirrorImageMap:
    """Which rbd-mirror instance replays an image."""

    instance_id: text
    mapped_time: utime
    data: blob
