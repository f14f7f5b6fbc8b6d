-- KEYS meta, log, floors, entry, claim, then the markers: of all, the scope, each tag.
-- ARGV epoch, seq, nonce, claim, prefix, rest, when it ends and when it grows stale by this server's clock in ms, for how long markers live, '1' for a miss that is kept, then the targets: the key, and one for each marker.
local m = parse(redis.call('GET', KEYS[1]))
local function release()
  if ARGV[4] ~= '' and redis.call('GET', KEYS[5]) == ARGV[4] then redis.call('DEL', KEYS[5]) end
end
local function valid()
  if not m or m.epoch ~= ARGV[1] then return false end
  mend(m, KEYS[2])
  local now, seq = redis.call('TIME'), tonumber(ARGV[2])
  if now[1] * 1000 + now[2] / 1000 >= tonumber(ARGV[8]) or seq > m.seq then return false end
  if seq < m.seq then
    if seq < m.floor then return false end
    for i = 11, #ARGV do
      local at = redis.call('ZSCORE', KEYS[2], ARGV[i])
      if at and tonumber(at) > seq then return false end
    end
  end
  local version = string.sub(ARGV[5], 5, 20)
  local floor = redis.call('HGET', KEYS[3], ARGV[11])
  return not floor or version >= floor
end
if not valid() then
  release()
  return 0
end
-- Markers say which generation of a scope or tag an entry is of. They live as long as any entry.
local gens = {}
for i = 6, #KEYS do
  gens[#gens + 1] = redis.call('GET', KEYS[i]) or ARGV[3]
end
local head = m.epoch .. table.concat(gens)
if ARGV[10] == '' then -- an older load does not replace a newer one that still holds
  local was = redis.call('GETRANGE', KEYS[4], 0, 19 + #head)
  if #was == 20 + #head and string.sub(was, 21) == head and string.sub(was, 3, 4) == string.sub(ARGV[5], 3, 4) and string.sub(was, 5, 20) > string.sub(ARGV[5], 5, 20) then
    release()
    return 0
  end
end
redis.call('SET', KEYS[4], ARGV[5] .. head .. ARGV[6], 'PXAT', ARGV[7]) -- the first write: a server that is full refuses it, and with it the rest
for i = 6, #KEYS do
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[9]) then
    redis.call('SET', KEYS[i], gens[i - 5], 'PX', ARGV[9])
  end
end
release()
return 1
