"""What the shared store does in one step to read and to note invalidations.

All notes of a tenant are one hash, `pannier:2:ep:{<tenant>}`, without a time to live, which no
eviction policy for values with one (`volatile-*`) ever touches:

    field        value
    *            the note for the whole tenant, ms since the Unix epoch by the store's clock
    n:, m:       notes for a namespace, for a model
    d:, c:, x:   notes for tags
    g:           when a collection grew
    t:           least similarity of a namespace
    @v           version: the time of the last change, and greater than the one before
    @b           the first note for the whole tenant, made by the first reader
    @p           when notes were last cleared out
    @h           replication id of the server that the notes were read or changed on last

The time of a note is the version, so that a clock set back cannot make it older than an earlier
one. Where several servers date values, it is put off by as much as their clocks may differ. The
first note is dated one millisecond back: what its reader computes next shall count.

A server may come back with older notes than have been acknowledged: it was started again from a
snapshot, or it is a copy that has become the master before the last notes reached it. Either way it
has another replication id than the notes name. Each start of a master and each promotion makes up a
new one, to which a server that is demoted and promoted again does not return, as it does to the id
of its process. Whoever comes first then makes a new note for the whole tenant, in the same step as
what it came for; so it does where it knows of a later version than there is. All replicas go by
that note, whenever they were started; who comes second finds the id in place.

A notice of each change goes to `pannier:2:inv`: tenant, version before, version after, fields, one
in a line. Who knew the version before needs nothing else; all others read anew. A new note for the
whole tenant that nobody has asked for names no version before, so that everybody reads anew.
"""

from services.cache.core.keys import KEY_PREFIX
from services.cache.ports import Script

__all__ = ["BUMP", "CHANNEL", "READ", "SET_THRESHOLD", "epochs_key"]

CHANNEL = KEY_PREFIX + b"inv"

# ARGV: tenant, channel, how far the clocks of the store's servers may differ in ms, version known.
_BEGIN = """
local key, tolerance, known = KEYS[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local function clear(limit)
  local all = redis.call('HGETALL', key)
  for index = 1, #all, 2 do
    local field = all[index]
    local kept = field == '*' or string.sub(field, 1, 1) == '@' or string.sub(field, 1, 2) == 't:'
    if not kept and (tonumber(all[index + 1]) or 0) <= limit then redis.call('HDEL', key, field) end
  end
  redis.call('HSET', key, '@p', text(now))
end
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)')
if not history then return redis.error_reply('NOPERM INFO tells no replication id') end
local present = redis.call('HEXISTS', key, '*') == 1
local latest = tonumber(redis.call('HGET', key, '@v') or '0') or 0
local sound = present and latest > 0 and redis.call('HGET', key, '@h') == history
if not sound or known > latest then
  local version = math.max(now + (present and tolerance or 0), latest + 1, known + 1)
  local first = text(version - 1)
  redis.call('HSET', key, '*', first, '@b', first, '@h', history, '@v', text(version))
  clear(version - 1)
  if present then redis.call('PUBLISH', ARGV[2], ARGV[1] .. '\\n-1\\n' .. text(version)) end
end
"""

_ADVANCE = """
local before = redis.call('HGET', key, '@v')
local version = text(math.max(now + tolerance, tonumber(before) + 1))
redis.call('HSET', key, '@v', version)
local reply = {time[1], time[2], before, version}
"""

READ = Script(
    "read_epochs",
    _BEGIN
    + """
if redis.call('HGET', key, '@v') == ARGV[4] then return {time[1], time[2]} end
return {time[1], time[2], redis.call('HGETALL', key)}
""",
)
"""ARGV: tenant, channel, how far the clocks of the store's servers may differ in ms, version known.
Returns seconds and microseconds of the store's clock, and where the version is another one, names
and values in turn."""

BUMP = Script(
    "bump_epochs",
    _BEGIN
    + _ADVANCE
    + """
local notice = {ARGV[1], before, version}
local cleared = tonumber(redis.call('HGET', key, '@p') or '0')
local limit = 0
if now - cleared > tonumber(ARGV[6]) then limit = now - tonumber(ARGV[5]) end
for index = 7, #ARGV do
  local field = ARGV[index]
  local previous = redis.call('HGET', key, field)
  if field == '*' then
    limit = tonumber(version)
    if previous == redis.call('HGET', key, '@b') then previous = false end
  end
  reply[#reply + 1] = previous or '0'
  notice[#notice + 1] = field
  redis.call('HSET', key, field, version)
end
if limit > 0 then clear(limit) end
redis.call('PUBLISH', ARGV[2], table.concat(notice, '\\n'))
return reply
""",
)
"""ARGV: those of `READ`, how long notes are needed, how often to clear out what is older (both in
ms), fields. Returns seconds and microseconds of the store's clock, version before, version after,
and for each field the note before, '0' where nobody had made one. A note for the whole tenant
replaces all others."""

SET_THRESHOLD = Script(
    "set_threshold",
    _BEGIN
    + _ADVANCE
    + """
reply[#reply + 1] = redis.call('HGET', key, ARGV[5]) or ''
if ARGV[6] == '' then
  redis.call('HDEL', key, ARGV[5])
else
  redis.call('HSET', key, ARGV[5], ARGV[6])
end
redis.call('PUBLISH', ARGV[2], ARGV[1] .. '\\n-1\\n' .. version)
return reply
""",
)
"""ARGV: those of `READ`, field, value or '' for none. Returns seconds and microseconds of the
store's clock, version before, version after, and the value before, '' where there was none. The
notice names no version before, so that everybody reads anew."""


def epochs_key(tenant_id: str) -> bytes:
    """Returns where the notes of a tenant are."""
    return b"%bep:{%b}" % (KEY_PREFIX, tenant_id.encode())
