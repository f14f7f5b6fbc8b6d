-- KEYS meta; ARGV nonce, run. It makes the record where there is none, and a new epoch where the server is not the one that the record was made on: one that took over, or came back,
-- may have lost invalidations that the one before had taken.
local m = parse(redis.call('GET', KEYS[1]))
if not m then
  m = { epoch = ARGV[1], seq = 0, floor = 0, run = ARGV[2] }
  write(KEYS[1], m)
elseif ARGV[2] ~= '' and m.run ~= ARGV[2] then
  m.epoch, m.seq, m.floor, m.run = ARGV[1], m.seq + 1, m.seq + 1, ARGV[2]
  write(KEYS[1], m)
end
return { m.epoch, string.format('%.0f', m.seq) }
