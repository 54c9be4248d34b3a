"""The options of RBD: names, types, defaults, and which of several places gives the value.

Contract
    An option is looked for in the metadata of the image, then in that of its pool (keys ``conf_<option>``),
    then in the client's own configuration. The first text that is a value counts; one that is none (written
    by something careless, or by a later release) is passed over. Each level has options of its own.

    Nothing here does I/O: metadata come as mappings from option name to raw text, the client's configuration
    as a function like `rados.Rados.conf_get`. What is refused raises `OptionError`; the API makes it EINVAL.

Source: the options of 20.2.4 as its monitor describes them; names, defaults, types and limits are compared
with a real cluster's in the tests. Options of later releases are unknown here, and ignored like any such.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from rbd_native.constants import (
    RBD_CONFIG_SOURCE_CONFIG,
    RBD_CONFIG_SOURCE_IMAGE,
    RBD_CONFIG_SOURCE_POOL,
    RBD_FEATURES_DEFAULT,
)
from rbd_native.option_types import FEATURES, FLAG, FLOAT, INT, OPERATIONS, SIZE, TEXT, UINT, Kind, Value

METADATA_PREFIX = "conf_"


class OptionError(ValueError):
    """No such option at that level, or a text that is no value of it."""


class Level(IntEnum):
    """Where an option may be overridden: each level includes the ones before it."""

    CLIENT = 0
    POOL = 1
    IMAGE = 2


class Option(NamedTuple):
    """minimum, maximum: inclusive, None for no limit. allowed: the only texts, empty for any.
    power_of_two: whether the value must be one."""

    kind: Kind
    default: Value
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    power_of_two: bool = False

    def parse(self, text: str) -> Value:
        """The value of a text; ValueError if it is none."""
        value = self.kind.parse(text)
        if self.allowed and value not in self.allowed:
            raise ValueError(f"{text!r} is none of {', '.join(self.allowed)}")
        if not isinstance(value, str):
            # Phrased so that NaN passes, as it does in librbd.
            below = self.minimum is not None and value < self.minimum
            above = self.maximum is not None and value > self.maximum
            if below or above:
                raise ValueError(f"{text!r} is not within {self.minimum} to {self.maximum}")
        if self.power_of_two and int(value).bit_count() != 1:
            raise ValueError(f"{text!r} is not a power of two")
        return value

    def render(self, value: Value) -> str:
        """The text that Ceph shows for a value."""
        return self.kind.render(value)


def _flag(default: bool) -> Option:
    return Option(FLAG, default)


def _uint(default: int, minimum: int | None = None, maximum: int | None = None) -> Option:
    return Option(UINT, default, minimum, maximum)


def _size(default: int) -> Option:
    return Option(SIZE, default)


def _float(default: float, minimum: float | None = None, maximum: float | None = None) -> Option:
    return Option(FLOAT, default, minimum, maximum)


def _text(default: str) -> Option:
    return Option(TEXT, default)


def _choice(default: str, *others: str) -> Option:
    return Option(TEXT, default, allowed=(default, *others))


_THROTTLES = ("iops", "bps", "read_iops", "read_bps", "write_iops", "write_bps")

_IMAGE_LEVEL = {
    "rbd_atime_update_interval": _uint(60),
    "rbd_balance_parent_reads": _flag(False),
    "rbd_balance_snap_reads": _flag(False),
    "rbd_blkin_trace_all": _flag(False),
    "rbd_blocklist_expire_seconds": _uint(0),
    "rbd_blocklist_on_break_lock": _flag(True),
    "rbd_cache": _flag(True),
    "rbd_cache_block_writes_upfront": _flag(False),
    "rbd_cache_max_dirty": _size(24 << 20),
    "rbd_cache_max_dirty_age": _float(1.0),
    "rbd_cache_max_dirty_object": _uint(0),
    "rbd_cache_policy": _choice("writearound", "writethrough", "writeback"),
    "rbd_cache_size": _size(32 << 20),
    "rbd_cache_target_dirty": _size(16 << 20),
    "rbd_cache_writethrough_until_flush": _flag(True),
    "rbd_clone_copy_on_read": _flag(False),
    "rbd_compression_hint": _choice("none", "compressible", "incompressible"),
    "rbd_concurrent_management_ops": _uint(10, minimum=1),
    "rbd_default_map_options": _text(""),
    "rbd_default_snapshot_quiesce_mode": _choice("required", "ignore-error", "skip"),
    "rbd_disable_zero_copy_writes": _flag(True),
    "rbd_discard_granularity_bytes": Option(UINT, 64 << 10, 4 << 10, 32 << 20, power_of_two=True),
    "rbd_enable_alloc_hint": _flag(True),
    "rbd_invalidate_object_map_on_timeout": _flag(True),
    "rbd_io_scheduler": _choice("simple", "none"),
    "rbd_io_scheduler_simple_max_delay": _uint(0),
    "rbd_journal_commit_age": _float(5.0),
    "rbd_journal_max_concurrent_object_sets": _uint(0),
    "rbd_journal_max_payload_bytes": _size(16 << 10),
    "rbd_journal_object_flush_age": _float(0.0),
    "rbd_journal_object_flush_bytes": _size(1 << 20),
    "rbd_journal_object_flush_interval": _uint(0),
    "rbd_journal_object_max_in_flight_appends": _uint(0),
    "rbd_journal_object_writethrough_until_flush": _flag(True),
    "rbd_localize_parent_reads": _flag(False),
    "rbd_localize_snap_reads": _flag(False),
    "rbd_mirroring_delete_delay": _uint(0),
    "rbd_mirroring_max_mirroring_snapshots": _uint(5, minimum=3),
    "rbd_mirroring_replay_delay": _uint(0),
    "rbd_mirroring_resync_after_disconnect": _flag(False),
    "rbd_move_parent_to_trash_on_remove": _flag(False),
    "rbd_move_to_trash_on_remove": _flag(False),
    "rbd_move_to_trash_on_remove_expire_seconds": _uint(0),
    "rbd_mtime_update_interval": _uint(60),
    "rbd_non_blocking_aio": _flag(True),
    "rbd_parent_cache_enabled": _flag(False),
    "rbd_persistent_cache_mode": _choice("disabled", "rwl", "ssd"),
    "rbd_persistent_cache_path": _text("/tmp"),
    "rbd_persistent_cache_size": _uint(1 << 30, minimum=1 << 30),
    "rbd_plugins": _text(""),
    "rbd_qos_exclude_ops": Option(OPERATIONS, 0),
    "rbd_qos_schedule_tick_min": _uint(50, minimum=1),
    **{f"rbd_qos_{what}_limit": _uint(0) for what in _THROTTLES},
    **{f"rbd_qos_{what}_burst": _uint(0) for what in _THROTTLES},
    **{f"rbd_qos_{what}_burst_seconds": _uint(1, minimum=1) for what in _THROTTLES},
    "rbd_quiesce_notification_attempts": _uint(10, minimum=1),
    "rbd_read_from_replica_policy": _choice("default", "balance", "localize"),
    "rbd_readahead_disable_after_bytes": _size(50 << 20),
    "rbd_readahead_max_bytes": _size(512 << 10),
    "rbd_readahead_trigger_requests": _uint(10),
    "rbd_request_timed_out_seconds": _uint(30),
    "rbd_skip_partial_discard": _flag(True),
    "rbd_sparse_read_threshold_bytes": _size(64 << 10),
}

_POOL_LEVEL = {
    "rbd_default_clone_format": _choice("auto", "1", "2"),
    "rbd_default_data_pool": _text(""),
    "rbd_default_features": Option(FEATURES, RBD_FEATURES_DEFAULT),
    "rbd_default_order": _uint(22),
    "rbd_default_stripe_count": _uint(0),
    "rbd_default_stripe_unit": _size(0),
    "rbd_journal_order": _uint(24, minimum=12, maximum=26),
    "rbd_journal_pool": _text(""),
    "rbd_journal_splay_width": _uint(4),
    "rbd_mirror_concurrent_image_deletions": _uint(1, minimum=1),
    "rbd_mirror_concurrent_image_syncs": _uint(5),
    "rbd_mirror_delete_retry_interval": _float(30.0),
    "rbd_mirror_image_perf_stats_prio": Option(INT, 5, minimum=0, maximum=11),
    "rbd_mirror_image_policy_migration_throttle": _uint(300),
    "rbd_mirror_image_policy_rebalance_timeout": _float(0.0),
    "rbd_mirror_image_policy_type": _choice("simple", "none"),
    "rbd_mirror_image_policy_update_throttle_interval": _float(1.0, minimum=1.0),
    "rbd_mirror_image_state_check_interval": _uint(30, minimum=1),
    "rbd_mirror_journal_commit_age": _float(5.0),
    "rbd_mirror_journal_poll_age": _float(5.0),
    "rbd_mirror_leader_heartbeat_interval": _uint(5, minimum=1),
    "rbd_mirror_leader_max_acquire_attempts_before_break": _uint(3),
    "rbd_mirror_leader_max_missed_heartbeats": _uint(2),
    "rbd_mirror_memory_autotune": _flag(True),
    "rbd_mirror_memory_base": _size(768 << 20),
    "rbd_mirror_memory_cache_autotune_interval": _float(30.0),
    "rbd_mirror_memory_cache_min": _size(128 << 20),
    "rbd_mirror_memory_cache_resize_interval": _float(5.0),
    "rbd_mirror_memory_expected_fragmentation": _float(0.15, minimum=0.0, maximum=1.0),
    "rbd_mirror_memory_target": _size(4 << 30),
    "rbd_mirror_perf_stats_prio": Option(INT, 5, minimum=0, maximum=11),
    "rbd_mirror_sync_point_update_age": _float(30.0),
}

_CLIENT_LEVEL = {
    "rbd_auto_exclusive_lock_until_manual_request": _flag(True),
    "rbd_config_pool_override_update_timestamp": _uint(0),
    "rbd_default_format": _uint(2),
    "rbd_default_pool": _text("rbd"),
    "rbd_discard_on_zeroed_write_same": _flag(True),
    "rbd_mirror_pool_replayers_refresh_interval": _uint(30),
    "rbd_op_thread_timeout": _uint(60),
    "rbd_op_threads": _uint(1),
    "rbd_tracing": _flag(False),
    "rbd_validate_names": _flag(True),
    "rbd_validate_pool": _flag(True),
}

OPTIONS: Mapping[str, Option] = MappingProxyType({**_IMAGE_LEVEL, **_POOL_LEVEL, **_CLIENT_LEVEL})

# What may be overridden at each level, in the order in which config_list shows it.
NAMES: Mapping[Level, tuple[str, ...]] = {
    Level.CLIENT: tuple(sorted(OPTIONS)),
    Level.POOL: tuple(sorted({**_IMAGE_LEVEL, **_POOL_LEVEL})),
    Level.IMAGE: tuple(sorted(_IMAGE_LEVEL)),
}
_OVERRIDABLE = {level: frozenset(names) for level, names in NAMES.items()}


def parse(name: str, text: str) -> Value:
    """The value that a text gives an option; OptionError if there is no such option, or it is no value."""
    try:
        return OPTIONS[name].parse(text)
    except KeyError as error:
        raise OptionError(f"no such option: {name}") from error
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from error


def validate(name: str, text: str, level: Level) -> None:
    """OptionError unless the option may be set to this text at this level."""
    if name not in _OVERRIDABLE[level]:
        raise OptionError(f"{name} is not an option of this level")
    parse(name, text)


def validate_metadata(key: str, text: str, level: Level) -> None:
    """OptionError if a metadata key stands for an option (``conf_<option>``) that may not be set to this."""
    if len(key) > len(METADATA_PREFIX) and key.startswith(METADATA_PREFIX):
        validate(key.removeprefix(METADATA_PREFIX), text, level)


def render(name: str, value: Value) -> str:
    """The text that Ceph shows for a value of an option."""
    return OPTIONS[name].render(value)


class Setting(NamedTuple):
    """value: what is in effect. text: what config_list shows, the most specific text there is, valid or not.
    source: where that text is from, one of RBD_CONFIG_SOURCE_*."""

    value: Value
    text: str
    source: int


class Settings:
    """The options as one image (or, without an image, one pool) has them; each is looked up when asked for.

    conf_get: the client's configuration, None for an option it does not know.
    pool, image: option name to raw text, from the metadata; image is None where no image is meant.
    """

    def __init__(
        self,
        conf_get: Callable[[str], str | None],
        pool: Mapping[str, bytes] | None = None,
        image: Mapping[str, bytes] | None = None,
    ) -> None:
        self._conf_get = conf_get
        self._level = Level.POOL if image is None else Level.IMAGE
        self._overrides = (
            (Level.IMAGE, RBD_CONFIG_SOURCE_IMAGE, image or {}),
            (Level.POOL, RBD_CONFIG_SOURCE_POOL, pool or {}),
        )
        self._found: dict[str, Setting] = {}

    def __getitem__(self, name: str) -> Setting:
        """KeyError if there is no such option."""
        setting = self._found.get(name)
        if setting is None:
            setting = self._found[name] = self._look_up(name)
        return setting

    def _look_up(self, name: str) -> Setting:
        option = OPTIONS[name]
        shown: tuple[str, int] | None = None
        for text, source in self._texts(name, option):
            shown = shown or (text, source)
            try:
                return Setting(option.parse(text), *shown)
            except ValueError:
                continue
        return Setting(option.default, *(shown or (option.render(option.default), RBD_CONFIG_SOURCE_CONFIG)))

    def _texts(self, name: str, option: Option) -> Iterator[tuple[str, int]]:
        for level, source, texts in self._overrides:
            if name in texts and name in _OVERRIDABLE[level]:
                yield texts[name].decode("utf-8", "surrogateescape"), source
        text = self._conf_get(name)
        yield option.render(option.default) if text is None else text, RBD_CONFIG_SOURCE_CONFIG

    def flag(self, name: str) -> bool:
        """The value of an option that is true or false."""
        return bool(self[name].value)

    def integer(self, name: str) -> int:
        """The value of an option that is a number, a size in bytes, or a feature mask."""
        return int(self[name].value)

    def real(self, name: str) -> float:
        """The value of an option that may have a fraction (mostly seconds)."""
        return float(self[name].value)

    def text(self, name: str) -> str:
        """The value of an option that is a text."""
        return str(self[name].value)

    def listing(self) -> list[tuple[str, str, int]]:
        """(name, text, source) of every option that may be overridden here, as config_list gives them."""
        return [(name, self[name].text, self[name].source) for name in NAMES[self._level]]
