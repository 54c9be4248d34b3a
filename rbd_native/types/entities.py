"""Clients and their addresses as Ceph writes them, and the state of a lock of class `lock`.

A lock lives in the xattr `lock.<name>` of the object it is on, as a :class:`LockInfo`; the same bytes answer
`get_info`.
"""

from __future__ import annotations

import ipaddress
import struct as _struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Annotated, Any, ClassVar

from rbd_native.encoding import (
    Codec,
    DecodeError,
    Reader,
    UTime,
    Wire,
    blob,
    codec_of,
    i64,
    struct,
    text,
    u8,
    u32,
    utime,
)


class EntityType(IntEnum):
    MON = 1
    MDS = 2
    OSD = 4
    CLIENT = 8
    MGR = 16


class AddressType(IntEnum):
    NONE = 0
    LEGACY = 1
    MSGR2 = 2
    ANY = 3


class LockType(IntEnum):
    NONE = 0
    EXCLUSIVE = 1
    SHARED = 2
    EXCLUSIVE_EPHEMERAL = 3


class LockFlag(IntFlag):
    """Of `lock`: renew the caller's own lock if it holds it, or only if it holds it."""

    MAY_RENEW = 1
    MUST_RENEW = 2


@struct()
class EntityName:
    """A daemon or client: `num` is a client's global id."""

    type: Annotated[EntityType, u8]
    num: i64

    def __str__(self) -> str:
        name = self.type.name.lower() if isinstance(self.type, EntityType) else str(self.type)
        return f"{name}.{self.num}"


@struct(1)
class _AddressBody:
    type: Annotated[AddressType, u32]
    nonce: u32
    sockaddr: blob


class _AddressCodec(Codec):
    """A marker byte 1 (the form since Kraken), then a versioned struct."""

    smallest = 7

    def write(self, value: Any, out: bytearray) -> None:
        out.append(1)
        codec_of(_AddressBody).write(_AddressBody(value.type, value.nonce, value.sockaddr), out)

    def read(self, reader: Reader) -> EntityAddress:
        (marker,) = reader.take(1)
        if marker != 1:
            raise DecodeError(f"address of unknown form {marker}")
        body = codec_of(_AddressBody).read(reader)
        return EntityAddress(body.type, body.nonce, body.sockaddr)


_FAMILY = _struct.Struct("<H")
_PORT = _struct.Struct(">H")
_AF_INET = 2
_AF_INET6 = 10


@dataclass(frozen=True, slots=True)
class EntityAddress(Wire):
    """A socket address with the nonce that tells apart the processes behind it.

    `sockaddr`: u16 family (little endian), u16 port (big endian), then for IPv4 the address and 8 zero bytes,
    for IPv6 u32 flow, the address, u32 scope.
    """

    type: Annotated[AddressType, u32]
    nonce: int
    sockaddr: bytes
    codec: ClassVar[Codec] = _AddressCodec()

    @classmethod
    def parse(cls, address: str, type: AddressType = AddressType.LEGACY) -> EntityAddress:
        """From "ip:port/nonce", IPv6 in brackets. ValueError where it is none."""
        endpoint, _, nonce = address.rpartition("/")
        host, _, port = endpoint.rpartition(":")
        ip = ipaddress.ip_address(host.strip("[]"))
        if ip.version == 4:
            raw = _FAMILY.pack(_AF_INET) + _PORT.pack(int(port)) + ip.packed + bytes(8)
        else:
            raw = _FAMILY.pack(_AF_INET6) + _PORT.pack(int(port)) + bytes(4) + ip.packed + bytes(4)
        return cls(type, int(nonce), raw)

    def __str__(self) -> str:
        """ "ip:port/nonce"; ":/nonce" for an address without a socket, as Ceph prints it."""
        if len(self.sockaddr) >= 16 and self.sockaddr[:2] == _FAMILY.pack(_AF_INET):
            host = str(ipaddress.IPv4Address(self.sockaddr[4:8]))
        elif len(self.sockaddr) >= 28 and self.sockaddr[:2] == _FAMILY.pack(_AF_INET6):
            host = f"[{ipaddress.IPv6Address(self.sockaddr[8:24])}]"
        else:
            return f":/{self.nonce}"
        return f"{host}:{_PORT.unpack_from(self.sockaddr, 2)[0]}/{self.nonce}"


@struct()
class EntityInstance:
    """One incarnation of an entity."""

    name: EntityName
    address: EntityAddress


@struct(1)
class LockerId:
    """Who holds a lock: a client may hold it several times under different cookies."""

    name: EntityName
    cookie: text

    @property
    def sort_key(self) -> tuple[int, int, bytes]:
        return self.name.type, self.name.num, self.cookie.encode("utf-8", "surrogateescape")


@struct(1)
class Locker:
    """`expiration`: when the lock lapses by itself; all zeros for never."""

    expiration: utime
    address: EntityAddress
    description: text

    def expired(self, now: UTime) -> bool:
        return self.expiration != UTime() and self.expiration < now


@struct(1)
class LockInfo:
    """Type and tag outlast the last holder; a lock that never was is (no lockers, NONE, "")."""

    lockers: dict[LockerId, Locker]
    type: Annotated[LockType, u8]
    tag: text
