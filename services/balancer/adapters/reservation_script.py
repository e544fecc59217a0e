r"""The one script that all replicas run in Redis, atomically: core commands of 6.2 and later.

Everything is in one hash, so that one call sees all of it, so that Redis Cluster keeps it together,
and so that an eviction loses all of it and not a part:

    version      counts the changes
    members      JSON: replica -> [end of its lease, number of its session, time of the last
                 answer that it has confirmed]
    settled_at   until when nobody is given a slot of another
    touched_at   time of the last call of any replica
    slots <backend>\n<model>     who holds what: <slot>:<replica>:<note>, comma-separated

Times are milliseconds of the server's clock. A replica that has not called within its lease is
struck out by whoever calls next. What counts as silence is the time since the last answer that a
replica is known to have received, not since its last call: a call may run long after its caller has
given up. Each change is published as JSON: [version, field, value], without
field where replicas have come or gone.
"""

__all__ = ["SCRIPT"]

SCRIPT = """
local key, channel = KEYS[1], ARGV[1]
local call = cjson.decode(ARGV[2])
local me = call.replica
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local head = redis.call('HMGET', key, 'version', 'members', 'settled_at', 'touched_at')
local version = tonumber(head[1] or 0)
local members = cjson.decode(head[2] or '{}')
local settled_at = tonumber(head[3] or 0)
local touched_at = tonumber(head[4] or 0)
if settled_at > now + 2 * call.settle_ms then
  settled_at = 0
end

local function publish(...)
  version = version + 1
  redis.call('PUBLISH', channel, cjson.encode({version, ...}))
end

local function read(field)
  local entries = {}
  for entry in string.gmatch(redis.call('HGET', key, field) or '', '[^,]+') do
    table.insert(entries, entry)
  end
  return entries
end

local function write(field, entries)
  local value = table.concat(entries, ',')
  if value == '' then
    redis.call('HDEL', key, field)
  else
    redis.call('HSET', key, field, value)
  end
  publish(field, value)
  return value
end

local function without(entries, is_gone)
  local kept = {}
  for _, entry in ipairs(entries) do
    local slot, replica = string.match(entry, '^(%d+):(%x+):')
    if not is_gone(tonumber(slot), replica) then
      table.insert(kept, entry)
    end
  end
  return kept
end

local function everything()
  local all, found = redis.call('HGETALL', key), {}
  for position = 1, #all, 2 do
    if string.sub(all[position], 1, 6) == 'slots ' then
      table.insert(found, {all[position], all[position + 1]})
    end
  end
  return found
end

local function strike_out(gone)
  for _, pair in ipairs(everything()) do
    local entries = read(pair[1])
    local kept = without(entries, function(_, replica) return gone[replica] end)
    if #kept < #entries then
      write(pair[1], kept)
    end
  end
  publish()
end

local gone = {}
for replica, member in pairs(members) do
  -- A lease without end means that the clock has been set back.
  if member[1] < now or member[1] > now + 2 * call.lease_ms then
    gone[replica] = true
  end
end
if call.holdings then
  if members[me] and members[me][2] >= call.session then
    return '{"known":false}'
  end
  gone[me] = true
elseif gone[me] or not members[me] or members[me][2] ~= call.session then
  return '{"known":false}'
elseif call.leaving then
  gone[me] = true
end
if next(gone) then
  strike_out(gone)
  for replica in pairs(gone) do
    members[replica] = nil
  end
end
if call.leaving then
  if next(members) then
    redis.call('HSET', key, 'version', version, 'members', cjson.encode(members))
  else
    redis.call('DEL', key)
  end
  return '{"known":false}'
end
members[me] = {now + call.lease_ms, call.session, call.confirmed_at}
local silent, silent_list = {}, {}
for replica, member in pairs(members) do
  if replica ~= me and math.abs(now - member[3]) > call.silence_ms then
    silent[replica] = true
    table.insert(silent_list, replica)
  end
end

for _, holding in ipairs(call.holdings or {}) do
  local entries = read(holding[1])
  table.insert(entries, holding[2] .. ':' .. me .. ':' .. holding[3])
  write(holding[1], entries)
end
-- Where one has come back, another may still be on its way.
if call.holdings
  and (call.away or now < settled_at or math.abs(now - touched_at) > call.silence_ms) then
  settled_at = now + call.settle_ms
end

for _, held in ipairs(call.released) do
  write(held[1], without(read(held[1]), function(slot, replica)
    return slot == held[2] and replica == me
  end))
end

local settling = now < settled_at
local function may_have(owner)
  return owner == me or not settling and members[owner] and not silent[owner]
end

local granted, values = {}, {}
for position, attempt in ipairs(call.attempts) do
  local field, slots, candidates, note = unpack(attempt)
  local entries, used, found = read(field), {}, -1
  for _, entry in ipairs(entries) do
    used[tonumber(string.match(entry, '^%d+'))] = true
  end
  for _, candidate in ipairs(candidates) do
    local slot, owner = unpack(candidate)
    if found < 0 and #entries < slots and not used[slot] and may_have(owner) then
      found = slot
    end
  end
  if found >= 0 then
    table.insert(entries, found .. ':' .. me .. ':' .. note)
    values[position] = write(field, entries)
  else
    values[position] = table.concat(entries, ',')
  end
  granted[position] = found
end

redis.call('HSET', key, 'version', version, 'members', cjson.encode(members),
  'settled_at', settled_at, 'touched_at', now)
local answer = {known = true, now = now, settling = settling, silent = silent_list,
  granted = granted, values = values}
if call.seen_version and call.seen_version ~= version then
  answer.version, answer.replicas, answer.slots = version, {}, everything()
  for replica in pairs(members) do
    table.insert(answer.replicas, replica)
  end
end
return cjson.encode(answer)
"""
