-- Every partition has a meta record: 8 bytes of epoch, then "seq floor run". seq counts invalidations; those up to floor are not in the log any more; run is the server that the epoch was
-- made on. Epochs, and the generations of markers, are random: what is missing and made anew never validates what was kept before.

local function parse(m)
  if not m then return nil end
  local seq, floor, run = string.match(m, '^(%d+) (%d+) (%S*)$', 9)
  return { epoch = string.sub(m, 1, 8), seq = tonumber(seq), floor = tonumber(floor), run = run }
end

local function write(key, m)
  redis.call('SET', key, m.epoch .. string.format('%.0f %.0f %s', m.seq, m.floor, m.run))
end

-- The log may be gone, by eviction or after a day without invalidations: then nothing is known of what came before.
local function mend(m, log)
  if m.seq > m.floor and redis.call('EXISTS', log) == 0 then m.floor = m.seq end
end
