"""The table of all Redis keys. No other file spells one out: Python takes `keys.JOB + id`, Lua `KEY.job .. id`.

The names are those of the code. Some keys use older words, because running systems hold data under them.
"""

from __future__ import annotations


class Key(str):
    """A Redis key, or the prefix of a family of keys: its pattern up to the first `{`.

    Attributes:
        pattern: the whole key, variable parts in braces.
        type: as returned by Redis' TYPE; `channel` for publish/subscribe, `name` for the names of RQ queues.
        life: what removes it, or its rows (members of a set, fields of a hash); `kept` if nothing does.
        owner: the module of `contracts` that it belongs to.
    """

    __slots__ = ("life", "owner", "pattern", "type")

    pattern: str
    type: str
    life: str
    owner: str

    def __new__(cls, pattern: str, type: str, life: str, owner: str) -> Key:  # noqa: A002
        """Create one row of the table."""
        key = super().__new__(cls, pattern.partition("{")[0])
        key.pattern, key.type, key.life, key.owner = pattern, type, life, owner
        return key


# fmt: off
# Jobs
JOB             = Key("darkroom:job:{id}",                 "hash",    "swept, then tombstone", "jobs/records")
EVENTS          = Key("darkroom:events:{id}",              "stream",  "swept with its job",    "jobs/events")
JOB_CHANNEL     = Key("darkroom:bells",                    "channel", "-",                     "jobs/events")
WAKE_JOBS       = Key("darkroom:wake:jobs",               "channel", "-",                     "queue/listener")
OWNER_JOBS      = Key("darkroom:jobs:{owner}",             "zset",    "rows: as their jobs",   "queue/listing")
ALL_JOBS        = Key("darkroom:all_jobs",                 "zset",    "rows: as their jobs",   "queue/listing")
API_KEY_JOBS    = Key("darkroom:holdings:{key}",           "set",     "pruned when full",      "queue/client")
IDEMPOTENCY     = Key("darkroom:once:{owner}:{sha256}",    "hash",    "a lease, then a day",   "queue/idempotency")
OWNER_IDEMPOTENCY = Key("darkroom:once_of:{owner}",        "zset",    "rows: as the keys",     "queue/idempotency")
RETRIES         = Key("darkroom:retries:{caller}:{sha256}", "zset",   "a minute",              "queue/retries")
ATTENDED        = Key("darkroom:attended",                 "zset",    "rows: to job's end",    "queue/attendance")
JOB_QUEUE       = Key("darkroom:{tier}:{model}:{owner}",   "name",    "-",                     "jobs/records")
WAITING         = Key("darkroom:waiting:{tier}",           "set",     "kept",                  "leases/claims")
LEASES          = Key("darkroom:leases",                   "zset",    "rows: to job's end",    "leases/claims")
NEEDED          = Key("darkroom:needed:{name}",            "zset",    "rows: while they wait", "leases/claims")
DEADLINES       = Key("darkroom:deadlines",                "zset",    "rows: to job's end",    "leases/claims")
OWNER_LOAD      = Key("darkroom:load",                     "hash",    "rows: while not 0",     "leases/claims")
ACCOUNTS        = Key("darkroom:accounts:{tier}",          "zset",    "rows: while active",    "leases/claims")
TIERS           = Key("darkroom:tiers",                    "hash",    "kept",                  "leases/claims")
IMAGE_PACE      = Key("darkroom:image_pace",               "hash",    "kept",                  "leases/claims")
JOB_COSTS       = Key("darkroom:job_costs",                "hash",    "kept",                  "leases/claims")
PAUSED          = Key("darkroom:paused",                   "hash",    "rows: until resumed",   "queue/operations")
DRAINED         = Key("darkroom:drained",                  "hash",    "rows: until resumed",   "queue/operations")
CLAIMERS        = Key("darkroom:claimers",                 "hash",    "rows: a few seconds",   "leases/claims")
JOB_SEQUENCE    = Key("darkroom:job_sequence",             "string",  "kept",                  "leases/claims")
RECORD_BYTES    = Key("darkroom:record_bytes",             "hash",    "rows: while not 0",     "queue/client")
JOB_COUNTS      = Key("darkroom:census",                   "hash",    "kept",                  "queue/stats")
WORKER          = Key("darkroom:worker:{id}",              "string",  "three heartbeats",      "processes/workers")
WORKER_STATE    = Key("darkroom:worker_state:{id}",       "string",  "three heartbeats",      "processes/workers")
WORKERS         = Key("darkroom:workers",                  "zset",    "rows: an hour",         "processes/workers")
# Files in the storage
EXPIRY          = Key("darkroom:expiry",                   "zset",    "rows: until swept",     "uploads/retention")
STORED_BYTES    = Key("darkroom:bytes",                    "hash",    "rows: while not 0",   "uploads/owner_bytes")
OWNER_BYTES     = Key("darkroom:bytes:{owner}",            "hash",    "rows: as the files",  "uploads/owner_bytes")
INPUT           = Key("darkroom:input:{sha256}",           "string",  "swept when unused",     "uploads/retention")
INPUTS          = Key("darkroom:inputs",                   "zset",    "rows: until swept",     "uploads/retention")
INPUT_HOLDERS   = Key("darkroom:holders",                  "hash",    "rows: to last use",     "uploads/retention")
GARBAGE         = Key("darkroom:rubbish",                  "zset",    "rows: to removal",      "uploads/retention")
UPLOAD          = Key("darkroom:upload:{owner}:{sha256}",  "string",  "upload TTL",            "uploads/images")
OWNER_UPLOADS   = Key("darkroom:uploads:{owner}",          "zset",    "last upload's TTL",     "uploads/images")
LORAS           = Key("darkroom:loras",                    "hash",    "until removed",         "uploads/adapters")
OWNER_LORAS     = Key("darkroom:loras:{owner}",            "hash",    "until removed",         "uploads/adapters")
INVERSIONS      = Key("darkroom:inversions",               "hash",    "until removed",         "uploads/adapters")
OWNER_INVERSIONS = Key("darkroom:inversions:{owner}",      "hash",    "until removed",         "uploads/adapters")
IP_ADAPTERS     = Key("darkroom:ip_adapters",              "hash",    "until removed",         "uploads/adapters")
OWNER_IP_ADAPTERS = Key("darkroom:ip_adapters:{owner}",    "hash",    "until removed",         "uploads/adapters")
CONTROLNETS     = Key("darkroom:controlnets",              "hash",    "until removed",         "uploads/adapters")
OWNER_CONTROLNETS = Key("darkroom:controlnets:{owner}",    "hash",    "until removed",         "uploads/adapters")
# Batches of requests
FILE            = Key("darkroom:file:{id}",                "hash",    "the file's own TTL",    "batches/files")
OWNER_FILES     = Key("darkroom:files:{owner}",            "zset",    "rows: as new ones come", "batches/files")
BATCH           = Key("darkroom:batch:{id}",               "hash",    "30 days after its end", "batches/batches")
OWNER_BATCHES   = Key("darkroom:batches:{owner}",          "zset",    "rows: as new ones come", "batches/batches")
BATCHES         = Key("darkroom:batches",                  "zset",    "rows: to batch's end",  "batches/batches")
BATCH_LINES     = Key("darkroom:batch_lines:{id}",         "hash",    "to batch's end",        "batches/batches")
BATCH_PARTS     = Key("darkroom:batch_parts:{id}",         "list",    "to batch's end",        "batches/batches")
# Access
API_KEY         = Key("darkroom:key:{id}",                 "hash",    "kept",                  "auth/api_keys")
API_KEYS        = Key("darkroom:keys",                     "zset",    "kept",                  "auth/api_keys")
RATE            = Key("darkroom:rate:{key}",               "zset",    "a minute",              "auth/api_keys")
USAGE           = Key("darkroom:usage:{day}",              "hash",    "92 days",               "queue/usage")
CALLER_OPTIONS  = Key("darkroom:caller_options:{key}",     "hash",    "30 days without use", "auth/caller_options")
LINK_SECRET     = Key("darkroom:link_secret",              "string",  "kept",                  "auth/signed_links")
SIGNER_LOCK     = Key("darkroom:signer_lock",              "string",  "half a minute",        "provenance/opening")
WRITE_PROBE     = Key("darkroom:probe",                    "string",  "a minute",              "redis/connection")
# Models
HUB_COMMITS     = Key("darkroom:hub_commits",              "hash",    "kept",                  "hub_revisions")
# Webhooks
WEBHOOK_QUEUE   = Key("darkroom:webhooks:{site}",          "name",    "-",                     "outbound/outbox")
WAKE_MESSAGES   = Key("darkroom:wake:messages",           "channel", "-",                     "queue/listener")
WEBHOOK_LEASES  = Key("darkroom:webhooks:leases",          "zset",    "rows: to the end",      "outbound/outbox")
WEBHOOK_RETRIES = Key("darkroom:webhooks:due",             "zset",    "rows: to next try",     "outbound/outbox")
WEBHOOK_QUEUED  = Key("darkroom:webhooks:queued",          "zset",    "rows: until taken",     "outbound/outbox")
SITE_TURN       = Key("darkroom:webhooks:turn",            "string",  "kept",                  "outbound/outbox")
SITE_TURNS      = Key("darkroom:webhooks:turns",           "zset",    "rows: while it waits",  "outbound/outbox")
WEBHOOK_SECRETS = Key("darkroom:webhook_secrets:{owner}",  "zset",    "kept; replaced: a day", "outbound/signing")
# Metrics
TOTALS          = Key("darkroom:totals",                   "hash",    "kept",                  "metrics")
FLUSHED         = Key("darkroom:posted:{process}",         "string",  "a day",                 "metrics")
# RQ's own keys, written by our scripts so that its tools show the truth; workers register themselves through rq
RQ_JOB          = Key("rq:job:{id}",                       "hash",    "swept with its job",    "queue/client")
RQ_QUEUE        = Key("rq:queue:{queue}",                  "list",    "while jobs wait",       "queue/client")
RQ_QUEUES       = Key("rq:queues",                         "set",     "kept",                  "queue/client")
RQ_STARTED      = Key("rq:wip:{queue}",                    "zset",    "rows: to job's end",    "leases/claims")
RQ_FINISHED     = Key("rq:finished:{queue}",               "zset",    "rows: as their jobs",   "leases/claims")
RQ_FAILED       = Key("rq:failed:{queue}",                 "zset",    "rows: as their jobs",   "leases/claims")
RQ_CANCELED     = Key("rq:canceled:{queue}",               "zset",    "rows: as their jobs",   "leases/claims")
RQ_WORKERS      = Key("rq:workers",                        "set",     "rows: as workers",      "leases/claims")
RQ_QUEUE_WORKERS = Key("rq:workers:{queue}",               "set",     "rows: as workers",      "leases/claims")
RQ_SCHEDULED    = Key("rq:scheduled:{queue}",              "zset",    "rows: to next try",     "outbound/outbox")
RQ_SUSPENDED    = Key("rq:suspended",                     "string",  "until `rq resume`",     "leases/claims")
# fmt: on

TABLE = {name.lower(): value for name, value in globals().items() if isinstance(value, Key)}


def lua_table() -> str:
    """Render the table as a line of Lua, `local KEY = {…}`, for the head of each script."""
    return "local KEY = {" + ", ".join(f"{name} = '{key}'" for name, key in TABLE.items()) + "}"
