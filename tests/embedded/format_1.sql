BEGIN TRANSACTION;
CREATE TABLE application (pool INTEGER, app TEXT, PRIMARY KEY (pool, app)) WITHOUT ROWID;
INSERT INTO "application" VALUES(1,'rbd');
CREATE TABLE application_metadata (
    pool INTEGER, app TEXT, key TEXT, value TEXT, PRIMARY KEY (pool, app, key)) WITHOUT ROWID;
CREATE TABLE blocklist (address TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY, obj INTEGER NOT NULL, idx INTEGER NOT NULL, state INTEGER NOT NULL, data BLOB,
    UNIQUE (obj, idx, state));
INSERT INTO "chunk" VALUES(1,1,0,9223372036854775807,X'6B6570742073696E636520666F726D61742031');
INSERT INTO "chunk" VALUES(2,2,0,9223372036854775807,X'78787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878');
CREATE TABLE client (gid INTEGER PRIMARY KEY, address TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE clone (
    obj INTEGER, id INTEGER, size INTEGER, mtime INTEGER, version INTEGER, omap INTEGER,
    overlap BLOB NOT NULL,      -- what it shares with the next newer state: see rbd_native.embedded.extents
    PRIMARY KEY (obj, id)) WITHOUT ROWID;
CREATE TABLE clone_snap (
    pool INTEGER, snap INTEGER, obj INTEGER, clone INTEGER, PRIMARY KEY (pool, snap, obj)) WITHOUT ROWID;
CREATE TABLE config (who TEXT, name TEXT, value TEXT, PRIMARY KEY (who, name)) WITHOUT ROWID;
INSERT INTO "config" VALUES('global','rbd_cache','false');
CREATE TABLE config_key (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO "meta" VALUES('created',1.79605708499931836135e+09);
INSERT INTO "meta" VALUES('format','1');
INSERT INTO "meta" VALUES('fsid','93c5ba0f-99aa-4033-a08b-db0872b57a2b');
INSERT INTO "meta" VALUES('gid',1);
INSERT INTO "meta" VALUES('notify',0);
INSERT INTO "meta" VALUES('require_min_compat_client','luminous');
INSERT INTO "meta" VALUES('version',0);
CREATE TABLE notify (
    id INTEGER PRIMARY KEY, obj INTEGER NOT NULL, gid INTEGER NOT NULL, deadline REAL NOT NULL, payload BLOB NOT NULL);
CREATE TABLE notify_ack (
    notify INTEGER, gid INTEGER, cookie INTEGER, reply BLOB,    -- NULL: not acknowledged yet
    PRIMARY KEY (notify, gid, cookie)) WITHOUT ROWID;
CREATE TABLE object (
    id INTEGER PRIMARY KEY, pool INTEGER NOT NULL, ns TEXT NOT NULL, oid BLOB NOT NULL,
    alive INTEGER NOT NULL,     -- 0: deleted, and here for its clones only
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, version INTEGER NOT NULL,
    seq INTEGER NOT NULL,       -- the newest snapshot it was written under
    top INTEGER NOT NULL,       -- its newest clone, or 0
    omap INTEGER NOT NULL,      -- whether it has one, though perhaps without keys
    UNIQUE (pool, ns, oid));
INSERT INTO "object" VALUES(1,1,'',X'6F626A656374',1,19,1796057085003096145,1,0,0,1);
INSERT INTO "object" VALUES(2,1,'',X'6F74686572',1,100,1796057085003367170,1,0,0,0);
CREATE TABLE omap (obj INTEGER, state INTEGER, key BLOB, value BLOB, PRIMARY KEY (obj, state, key)) WITHOUT ROWID;
INSERT INTO "omap" VALUES(1,9223372036854775807,X'6B6579',X'76616C7565');
CREATE TABLE pool (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL, snap_seq INTEGER NOT NULL DEFAULT 0);
INSERT INTO "pool" VALUES(1,'rbd',2);
CREATE TABLE removed_snap (pool INTEGER, snap INTEGER, PRIMARY KEY (pool, snap)) WITHOUT ROWID;
CREATE TABLE watch (
    obj INTEGER, gid INTEGER, cookie INTEGER, timeout INTEGER NOT NULL,
    PRIMARY KEY (obj, gid, cookie)) WITHOUT ROWID;
CREATE TABLE xattr (obj INTEGER, state INTEGER, name BLOB, value BLOB, PRIMARY KEY (obj, state, name)) WITHOUT ROWID;
INSERT INTO "xattr" VALUES(1,9223372036854775807,X'6E616D65',X'76');
CREATE INDEX clone_snap_obj ON clone_snap (obj, clone, snap);
CREATE INDEX watch_gid ON watch (gid);
CREATE INDEX notify_ack_gid ON notify_ack (gid, reply);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('pool',1);
COMMIT;
