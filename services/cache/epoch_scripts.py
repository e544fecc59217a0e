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

The time of a note is the version, so that a clock set back cannot make it older than an earlier
one. Where several servers date values, it is put off by as much as their clocks may differ. The
first note is dated one millisecond back: what its reader computes next shall count.

A notice of each change goes to `pannier:2:inv`: tenant, version before, version after, fields, one
in a line. Who knew the version before needs nothing else; all others read anew.
"""

from services.cache.core.keys import KEY_PREFIX
from services.cache.ports import Script

__all__ = ["BUMP", "CHANNEL", "READ", "SET_THRESHOLD", "epochs_key"]

CHANNEL = KEY_PREFIX + b"inv"

_BEGIN = """
local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
if redis.call('HEXISTS', key, '*') == 0 then
  local first = text(now - 1)
  redis.call('HSET', key, '*', first, '@b', first, '@p', first, '@v', text(now))
end
"""

_ADVANCE = """
local before = redis.call('HGET', key, '@v') or '0'
local version = text(math.max(now + tolerance, (tonumber(before) or 0) + 1))
redis.call('HSET', key, '@v', version)
"""

READ = Script(
    "read_epochs",
    _BEGIN
    + """
if redis.call('HGET', key, '@v') == ARGV[1] then return {time[1], time[2]} end
return {time[1], time[2], redis.call('HGETALL', key)}
""",
)
"""ARGV: version known. Returns seconds and microseconds of the store's clock, and where the version
is another one, names and values in turn."""

BUMP = Script(
    "bump_epochs",
    _BEGIN
    + "local tolerance = tonumber(ARGV[5])"
    + _ADVANCE
    + """
local reply = {time[1], time[2], before, version}
local notice = {ARGV[1], before, version}
local cleared = tonumber(redis.call('HGET', key, '@p') or '0')
local limit = 0
if now - cleared > tonumber(ARGV[4]) then limit = now - tonumber(ARGV[3]) end
for index = 6, #ARGV do
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
if limit > 0 then
  local all = redis.call('HGETALL', key)
  for index = 1, #all, 2 do
    local field = all[index]
    local kept = field == '*' or string.sub(field, 1, 1) == '@' or string.sub(field, 1, 2) == 't:'
    if not kept and (tonumber(all[index + 1]) or 0) <= limit then redis.call('HDEL', key, field) end
  end
  redis.call('HSET', key, '@p', text(now))
end
redis.call('PUBLISH', ARGV[2], table.concat(notice, '\\n'))
return reply
""",
)
"""ARGV: tenant, channel, how long notes are needed, how often to clear out what is older, how far
the clocks of the store's servers may differ (all in ms), fields. Returns seconds and microseconds
of the store's clock, version before, version after, and for each field the note before, '0' where
nobody had made one. A note for the whole tenant replaces all others."""

SET_THRESHOLD = Script(
    "set_threshold",
    _BEGIN
    + "local tolerance = 0"
    + _ADVANCE
    + """
local previous = redis.call('HGET', key, ARGV[3])
if ARGV[4] == '' then
  redis.call('HDEL', key, ARGV[3])
else
  redis.call('HSET', key, ARGV[3], ARGV[4])
end
redis.call('PUBLISH', ARGV[2], ARGV[1] .. '\\n-1\\n' .. version)
return {time[1], time[2], before, version, previous or ''}
""",
)
"""ARGV: tenant, channel, field, value or '' for none. Returns seconds and microseconds of the
store's clock, version before, version after, and the value before, '' where there was none. The
notice names no version before, so that everybody reads anew."""


def epochs_key(tenant_id: str) -> bytes:
    """Returns where the notes of a tenant are."""
    return b"%bep:{%b}" % (KEY_PREFIX, tenant_id.encode())
