-- KEYS meta, log, floors; ARGV what the names begin with that are to go. Fills from before are refused then, all of them.
local m = parse(redis.call('GET', KEYS[1]))
if not m then return 0 end
for _, target in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  for i = 1, #ARGV do
    if string.sub(target, 1, #ARGV[i]) == ARGV[i] then
      redis.call('ZREM', KEYS[2], target)
      redis.call('HDEL', KEYS[3], target)
    end
  end
end
m.floor = m.seq
write(KEYS[1], m)
return 1
