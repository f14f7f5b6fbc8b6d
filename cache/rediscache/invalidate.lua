-- KEYS meta, log, floors, then all that goes. ARGV nonce, channel, '1' for a sharded one, how many invalidations are remembered and for how many ms, then target and version of each; the last is what is told.
for i = 4, #KEYS do
  redis.call('DEL', KEYS[i]) -- first: after it a server that is full lets the rest be written
end
local m = parse(redis.call('GET', KEYS[1])) or { epoch = ARGV[1], seq = 0, floor = 0, run = '' }
mend(m, KEYS[2])
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('DEL', KEYS[3]) end
m.seq = m.seq + 1
for i = 6, #ARGV - 1, 2 do
  redis.call('ZADD', KEYS[2], m.seq, ARGV[i])
  local floor = ARGV[i + 1]
  if floor == '' then
    redis.call('HDEL', KEYS[3], ARGV[i])
  elseif floor > (redis.call('HGET', KEYS[3], ARGV[i]) or '') then
    redis.call('HSET', KEYS[3], ARGV[i], floor)
  end
end
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[4])
if over > 0 then
  local old = redis.call('ZPOPMIN', KEYS[2], over)
  for i = 1, #old, 2 do
    redis.call('HDEL', KEYS[3], old[i])
    m.floor = math.max(m.floor, tonumber(old[i + 1]))
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
write(KEYS[1], m)
local seq = string.format('%.0f', m.seq)
local message = m.epoch .. seq .. '\n' .. ARGV[#ARGV]
local told = ARGV[3] ~= '' and redis.pcall('SPUBLISH', ARGV[2], message)
if type(told) ~= 'number' then -- SPUBLISH came with Redis 7
  redis.pcall('PUBLISH', ARGV[2], message) -- who may not is told of by the log
end
return { m.epoch, seq }
