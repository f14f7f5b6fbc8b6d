-- KEYS meta, log, floors; ARGV what the names begin with that are to go. Fills from before are refused then, all of them.
local m = parse(redis.call('GET', KEYS[1]))
if not m then return 0 end
for _, target in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  for i = 1, #ARGV do
    if string.sub(target, 1, #ARGV[i]) == ARGV[i] then
      -- In a slot that is on its way a key that is empty can't be touched any more; the floor has to be written all the same.
      redis.pcall('ZREM', KEYS[2], target)
      redis.pcall('HDEL', KEYS[3], target)
    end
  end
end
m.floor = m.seq
write(KEYS[1], m)
return 1
