-- KEYS meta, log, floors; ARGV epoch, seq. It answers the epoch, seq, and what was invalidated since ARGV's: target, seq and version of each; or 'lost' if that is not known any more.
local m = parse(redis.call('GET', KEYS[1]))
if not m then return { '', '0', 'lost' } end
local out = { m.epoch, string.format('%.0f', m.seq), '' }
local seq = tonumber(ARGV[2])
mend(m, KEYS[2])
if m.epoch ~= ARGV[1] or seq < m.floor or seq > m.seq then -- numbers that went back are those of a server that has lost some
  out[3] = 'lost'
elseif seq < m.seq then
  local all = redis.call('ZRANGEBYSCORE', KEYS[2], string.format('(%.0f', seq), '+inf', 'WITHSCORES')
  for i = 1, #all, 2 do
    out[#out + 1] = all[i]
    out[#out + 1] = string.format('%.0f', tonumber(all[i + 1]))
    out[#out + 1] = redis.call('HGET', KEYS[3], all[i]) or ''
  end
end
return out
