"""What Redis does in one step for the semantic layer.

A partition is a hash of entries and a stream of changes in the same slot. Three fields of the hash
describe the partition itself; no entry's name begins with '#'.

    #g  generation: when the hash came to be, by the store's clock; tells it from one lost before
    #n  number of the last change
    #d  components of the vectors

Entry n of the stream has the id n-0 and names what changed, not how: whoever reads it is given the
hash's present state, so that changes read twice or together do no harm. A reader whose next change
is gone from the stream reads the whole hash.
"""

from services.cache.ports import Script

__all__ = ["CATCH_UP", "COUNT_VERDICT", "PUT", "REMOVE"]

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# The stream lives as long as the hash, however late it came to be.
_CHANGE = """
local function change(form)
  local number = redis.call('HINCRBY', KEYS[1], '#n', 1)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', LIMIT, number .. '-0',
             'f', form, 't', string.format('%.0f', now))
  return number
end
local function announce(channel, partition, generation, number)
  redis.call('PEXPIRE', KEYS[2], math.max(1, redis.call('PTTL', KEYS[1])))
  redis.call('PUBLISH', channel, 'p ' .. partition .. ' ' .. generation .. ' ' .. number)
end
""".replace("LIMIT", "10000")

PUT = Script(
    "semantic_put",
    # channel, partition, form, data, dimension, ttl_ms -> {now, 0, dimension} where another
    # dimension is expected, else {now, 1, generation, number}
    _NOW
    + _CHANGE
    + """
local channel, partition, form, data, dimension, ttl = unpack(ARGV)
local meta = redis.call('HMGET', KEYS[1], '#g', '#d')
local generation = meta[1]
if meta[2] and meta[2] ~= dimension then
  return {now, 0, tonumber(meta[2])}
end
if not generation then
  generation = time[1] .. '.' .. time[2]
  redis.call('HSET', KEYS[1], '#g', generation, '#d', dimension)
  redis.call('DEL', KEYS[2])
end
redis.call('HSET', KEYS[1], form, data)
local number = change(form)
if redis.call('PTTL', KEYS[1]) < tonumber(ttl) then
  redis.call('PEXPIRE', KEYS[1], ttl)
end
announce(channel, partition, generation, number)
return {now, 1, generation, number}
""",
)

REMOVE = Script(
    "semantic_remove",
    # channel, partition, quiet, {form, version} ... -> how many were there
    _NOW
    + _CHANGE
    + """
local removed, number = 0, 0
for i = 4, #ARGV, 2 do
  local data = redis.call('HGET', KEYS[1], ARGV[i])
  if data and string.sub(data, 1, #ARGV[i + 1]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    removed = removed + 1
    if ARGV[3] == '0' then number = change(ARGV[i]) end
  end
end
if number > 0 then
  announce(ARGV[1], ARGV[2], redis.call('HGET', KEYS[1], '#g'), number)
end
return removed
""",
)

CATCH_UP = Script(
    "semantic_catch_up",
    # generation, number, limit -> {now, generation, number, read, since, form, data, ...}: the
    # partition's present generation and number, the number that the changes given reach to, or -1
    # where some are missing, and when the first of them was made
    _NOW
    + """
local meta = redis.call('HMGET', KEYS[1], '#g', '#n')
if not meta[1] then return {now, '', 0, 0, now} end
local known, number = tonumber(ARGV[2]), tonumber(meta[2] or '0')
if meta[1] ~= ARGV[1] or number < known then return {now, meta[1], number, -1, now} end
if number == known then return {now, meta[1], number, number, now} end
local first = string.format('%.0f-0', known + 1)
local changes = redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[3])
if #changes == 0 or changes[1][1] ~= first then return {now, meta[1], number, -1, now} end
local forms, seen = {}, {}
for _, change in ipairs(changes) do
  local form = change[2][2]
  if not seen[form] then
    seen[form] = true
    forms[#forms + 1] = form
  end
end
local reply = {now, meta[1], number, known + #changes, tonumber(changes[1][2][4])}
local data = redis.call('HMGET', KEYS[1], unpack(forms))
for i, form in ipairs(forms) do
  reply[#reply + 1] = form
  reply[#reply + 1] = data[i]
end
return reply
""",
)

COUNT_VERDICT = Script(
    "semantic_count_verdict",
    # channel, notice, field, ttl_ms -> the new count
    """
local count = redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return count
""",
)
