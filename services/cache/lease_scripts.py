"""The steps of the lease protocol that the store takes as one.

Each touches the keys of one entry only, which share a hash slot, and tells the time by the store's
clock. A key that holds something of another type counts as empty, and so does a value of no bytes:
whoever put it there must not stop the service.
"""

from services.cache.ports import Script

__all__ = ["APPEND", "EXTEND", "FILL", "RELEASE", "TAKE"]

# Keys: value, lease, failures. Arguments: nonce, lease in ms, which values count, its argument,
# token to restore, its time in ms.
#
# Which values count: "any"; "other" than the one that ends with the argument, which the caller has
# seen and cannot use; "fresher", where more ms are left than the argument. A lease is restored only
# where there is no value at all: otherwise a later one may have been filled meanwhile.
TAKE = Script(
    "take_lease",
    """
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
local value = redis.pcall('GET', KEYS[1])
if value == '' then
  value = false
end
if type(value) == 'string' then
  if ARGV[3] == 'any'
      or (ARGV[3] == 'other' and string.sub(value, -16) ~= ARGV[4])
      or (ARGV[3] == 'fresher' and redis.call('PTTL', KEYS[1]) > tonumber(ARGV[4])) then
    return {'value', now, value}
  end
end
local known = redis.pcall('GET', KEYS[3])
if type(known) == 'string' and string.sub(known, 1, 1) == '!' then
  return {'failure', now, known, redis.call('PTTL', KEYS[3])}
end
local holder = redis.pcall('GET', KEYS[2])
if type(holder) == 'string' then
  return {'held', now, holder, redis.call('PTTL', KEYS[2])}
end
local token, duration, kind = now .. '-' .. ARGV[1], ARGV[2], 'lease'
if ARGV[5] ~= '' and not value then
  token, duration, kind = ARGV[5], ARGV[6], 'held'
end
local set = redis.pcall('SET', KEYS[2], token, 'PX', duration)
if set['err'] then
  return {'full', now}
end
return {kind, now, token, tonumber(duration)}
""",
)

# Keys: value, lease, failures, stream. Arguments: token, frame, time to live in ms, how long the
# stream stays in ms, channel, notice. Returns 1 where the value was taken, 0 where the store would
# not take it, -1 where the lease is not held.
FILL = Script(
    "fill_lease",
    """
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then
  return -1
end
local set = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
local kept = set['err'] and 0 or 1
redis.call('DEL', KEYS[2])
if kept == 1 then
  redis.call('DEL', KEYS[3])
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  redis.pcall('XADD', KEYS[4], '*', 'e', kept)
  redis.call('PEXPIRE', KEYS[4], ARGV[4])
end
redis.call('PUBLISH', ARGV[5], ARGV[6])
return kept
""",
)

# Keys: lease, failures, stream. Arguments: token, how long the stream stays in ms, channel, notice,
# failure or nothing, how long it is remembered in ms or 0 to count it, how long failures count in
# ms, how many are too many, how long these are remembered in ms. Of a lease whose reply was lost
# only the end of the token is known, from its `-` on. Returns how long the failure is remembered in
# ms, -1 where the lease is not held.
RELEASE = Script(
    "release_lease",
    """
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and string.sub(ARGV[1], 1, 1) == '-' then
  holder = string.sub(holder, -string.len(ARGV[1]))
end
if holder ~= ARGV[1] then
  return -1
end
redis.call('DEL', KEYS[1])
local remembered = 0
if ARGV[5] ~= '' then
  remembered = tonumber(ARGV[6])
  if remembered == 0 then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local recent = {}
    local known = redis.pcall('GET', KEYS[2])
    if type(known) == 'string' and string.sub(known, 1, 1) ~= '!' then
      for each in string.gmatch(known, '%d+') do
        if tonumber(each) > now - tonumber(ARGV[7]) then
          table.insert(recent, each)
        end
      end
    end
    table.insert(recent, string.format('%.0f', now))
    if #recent >= tonumber(ARGV[8]) then
      remembered = tonumber(ARGV[9])
    else
      redis.pcall('SET', KEYS[2], table.concat(recent, ','), 'PX', ARGV[7])
    end
  end
  if remembered > 0 then
    redis.pcall('SET', KEYS[2], '!' .. ARGV[5], 'PX', remembered)
  end
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.pcall('XADD', KEYS[3], '*', 'a', ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return remembered
""",
)

# Keys: lease, value. Arguments: token, duration in ms, 1 to set the lease anew where there is
# neither one nor a value, since the store may have forgotten it. Returns 1, or 0 where the lease is
# not held.
EXTEND = Script(
    "extend_lease",
    """
local holder = redis.pcall('GET', KEYS[1])
if holder == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if holder == false and ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then
  local set = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return set['err'] and 0 or 1
end
return 0
""",
)

# Keys: lease, stream. Arguments: token, how long the stream stays in ms, most entries, the text's
# date in ms, its tags, number of the first entry, then part and text of each. Entry 0 makes the
# stream anew. Returns 1, or 0 where the lease is not held.
APPEND = Script(
    "append_text",
    """
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local number = tonumber(ARGV[6])
if number == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('XADD', KEYS[2], '*', 'b', ARGV[1], 'm', ARGV[4], 't', ARGV[5])
end
for index = 7, #ARGV, 2 do
  number = number + 1
  local part, text = ARGV[index], ARGV[index + 1]
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'n', number, part, text)
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
""",
)
