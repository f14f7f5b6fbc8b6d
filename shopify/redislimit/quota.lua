-- The machine of shopify's bucket.go and local.go, for all processes at once. Its rules are explained there; names are the same.
--
-- KEYS: state, calls under way, the lines of background and interactive calls, and what is known of those who stand in them.
-- ARGV: what to do, the call's ID (process:number), the prefix of the channels of hints, and packed numbers: the call's cost, whether it is interactive, the share that it has to keep, its lease in
-- seconds, and for how many seconds a bucket that nobody knew is not trusted; for settle, after them, the actual cost, what is left, size and rate, and the grant.

local state, way, tickets = KEYS[1], KEYS[2], KEYS[5]
local lines = { KEYS[3], KEYS[4] }
local op, id, channel = ARGV[1], ARGV[2], ARGV[3]
local cost, class, keep, lease, SETTLE_IN = struct.unpack('<ddddd', ARGV[4])
class = class + 1
local t = redis.call('TIME')
local now = t[1] * 1 + t[2] / 1e6

-- Seconds: how long a lost answer's call counts as under way, a call does while nothing is known, a ticket lives beyond the time when its call asks again, one lives that was told that it
-- is its turn, and the longest time to ask again.
local LOST, PROBE, GRACE, TURN, AGAIN = 10, 15, 1, 2, 1
local TTL = 3600000 -- ms: a bucket that nobody uses is full long before

-- The state is one packed string: known, size, rate, left, at, under way, probes, spent, refunded, margin, margin's time, asked, taken, allowance, epoch, waiting (background,
-- interactive), number of the next ticket, when the first call under way ends, and how much of what is under way is lost.
local form = '<dddddddddddddddddddd'
local b = {}
local packed = redis.call('GET', state)
if packed and #packed == struct.size(form) then -- not another release's
  b.known, b.size, b.rate, b.left, b.at, b.way, b.probes, b.spent, b.refunded, b.margin, b.marginAt, b.asked, b.taken, b.allowance, b.epoch, b[1], b[2], b.seq, b.ends, b.lost = struct.unpack(form, packed)
else
  b.known, b.size, b.rate, b.left, b.at, b.way, b.probes, b.spent, b.refunded, b.margin, b.marginAt, b.asked, b.taken, b.allowance, b.epoch = 0, 0, 0, 0, now, 0, 0, 0, 0, 0, now, 0, 0, 0, now
  b[1], b[2], b.seq, b.ends, b.lost = 0, 0, 0, 0, 0
  redis.call('DEL', way, lines[1], lines[2], tickets) -- of a time before
end

local function save()
  redis.call('SET', state, struct.pack(form, b.known, b.size, b.rate, b.left, b.at, b.way, b.probes, b.spent, b.refunded, b.margin, b.marginAt, b.asked, b.taken, b.allowance, b.epoch, b[1], b[2], b.seq, b.ends, b.lost), 'PX', TTL)
end

-- A clock that was set back, or another server's after a failover: what was to happen then happens as long from now as it can be.
local function rewind()
  if now >= b.at - 1 then return end
  b.at, b.marginAt = now, now
  if b.epoch > now then b.epoch = now end
  local all = redis.call('HGETALL', way)
  for i = 1, #all, 2 do
    local c, at, spent, refunded, ends, probe = struct.unpack('<dddddd', all[i + 1])
    redis.call('HSET', way, all[i], struct.pack('<dddddd', c, math.min(at, now), spent, refunded, math.min(ends, now + 60), probe))
  end
  if b.ends > now + 60 then b.ends = now + 60 end
end

-- Calls whose lease has ended are lost: they have cost what they might have.
local function expire()
  if b.ends == 0 or now < b.ends then return end
  b.ends = 0
  local all = redis.call('HGETALL', way)
  if #all == 0 then b.way, b.probes, b.lost = 0, 0, 0 end -- evicted
  for i = 1, #all, 2 do
    local c, _, _, _, ends, probe = struct.unpack('<dddddd', all[i + 1])
    if ends <= now then
      redis.call('HDEL', way, all[i])
      b.way = math.max(0, b.way - c)
      if probe < 0 then b.lost = math.max(0, b.lost - c) end
      b.spent = b.spent + c
      b.probes = math.max(0, b.probes - math.max(0, probe))
    elseif b.ends == 0 or ends < b.ends then
      b.ends = ends
    end
  end
end

local function advance()
  if now > b.at then
    b.left = b.left + (now - b.at) * b.rate
    b.at = now
  end
  b.left = math.min(b.left, b.size - b.way)
  if now > b.marginAt then
    b.margin = math.max(b.margin * 2 ^ (-(now - b.marginAt) / 30), 0.02 * b.size)
    b.marginAt = now
  end
end

local function need(c, k)
  return math.min(c + k + b.margin, math.max(c, 0.95 * b.size))
end

local function lets(c, k)
  if b.known == 0 then return b.probes == 0 end
  if now < b.epoch + SETTLE_IN and b.left + b.way < 0.95 * b.size - c then return false end
  return b.left - b.margin - k >= c or b.left >= math.max(c, 0.95 * b.size)
end

-- head is the first of a line who is still there: ID, cost, until when it lives if nobody asks.
local function head(n)
  while b[n] > 0 do
    local first = redis.call('ZRANGE', lines[n], 0, 0)[1]
    if not first then
      b[n] = 0
      return nil
    end
    local t = redis.call('HGET', tickets, first)
    if t then
      local c, alive = struct.unpack('<dd', t)
      if alive >= now then return first, c, alive end
    end
    redis.call('ZREM', lines[n], first)
    redis.call('HDEL', tickets, first)
    b[n] = redis.call('ZCARD', lines[n])
  end
  return nil
end

-- hint tells the first of each line to ask again. One that does not, because its process is gone, holds the others up no longer than a moment.
local function hint()
  for n = 1, 2 do
    local first, c, alive = head(n)
    if first and first ~= id then
      if alive > now + TURN then redis.call('HSET', tickets, first, struct.pack('<dd', c, now + TURN)) end
      local process, number = first:match('^(.*):(%d+)$')
      redis.call('PUBLISH', channel .. process, number)
    end
  end
end

-- keepOf is what the call has to leave to interactive ones; nothing if it is its turn.
local function keepOf()
  if class == 2 or b.allowance >= cost then return 0 end
  return keep * b.size
end

local function leave()
  if redis.call('ZREM', lines[class], id) == 1 then
    b[class] = math.max(0, b[class] - 1)
    redis.call('HDEL', tickets, id)
  end
end

-- before is what goes before the call: of a long line, its first 200 are looked at.
local function before(rank)
  local sum = 0
  local function add(n, count)
    if count <= 0 then return end
    local ids = redis.call('ZRANGE', lines[n], 0, math.min(count, 200) - 1)
    local part = 0
    for _, t in ipairs(redis.call('HMGET', tickets, unpack(ids))) do
      if t then part = part + struct.unpack('<d', t) end
    end
    sum = sum + part * count / #ids
  end
  add(class, rank)
  if class == 1 then add(2, b[2]) end
  return sum
end

-- turn is the answer to a take.
local function turn(granted, at, spent, refunded, after, again)
  return struct.pack('<dddddddd', granted, b.epoch, at, spent, refunded, b.size, after, again)
end

local function take()
  local old = redis.call('HGET', way, id)
  if old then -- its answer was lost
    local _, at, spent, refunded = struct.unpack('<dddddd', old)
    return turn(1, at, spent, refunded, 0, 0)
  end
  local mine, other = head(class), head(3 - class)
  local may = not mine or mine == id
  if may and class == 2 then
    if other then
      local c = struct.unpack('<d', redis.call('HGET', tickets, other))
      may = b.allowance < c
    end
    may = may and lets(cost, 0)
  elseif may then
    may = not (other and b.allowance < cost) and lets(cost, keepOf())
  end
  if may then
    leave()
    local ends, probe = now + lease, 0
    if b.known == 0 then
      ends, probe = now + math.min(lease, PROBE), 1
      b.probes = b.probes + 1
    end
    redis.call('HSET', way, id, struct.pack('<dddddd', cost, now, b.spent, b.refunded, ends, probe))
    redis.call('PEXPIRE', way, TTL)
    if b.ends == 0 or ends < b.ends then b.ends = ends end
    local grant = turn(1, now, b.spent, b.refunded, 0, 0)
    b.left = b.left - cost
    b.way = b.way + cost
    if b[1] == 0 then
      b.allowance = 0
    elseif class == 2 then
      b.allowance = b.allowance + cost / 4
    else
      b.allowance = math.max(0, b.allowance - cost)
    end
    hint()
    return grant
  end
  local rank = redis.call('ZRANK', lines[class], id)
  if not rank then
    b.seq = b.seq + 1
    redis.call('ZADD', lines[class], b.seq, id)
    rank = b[class]
    b[class] = b[class] + 1
  end
  local after, again = 0, 1
  if b.known == 1 then
    local share = 1
    if b.asked > 0 then share = b.taken / b.asked end
    after = math.min(3600, math.max(0, need(cost, keepOf()) + before(rank) * share - b.left - math.max(0, b.way - b.lost) * (1 - share)) / b.rate)
    again = math.max(after, AGAIN) -- a hint comes when it is the call's turn
    if rank == 0 and not lets(cost, keepOf()) then again = math.max(0, need(cost, keepOf()) - b.left) / b.rate end
    if now < b.epoch + SETTLE_IN then again = math.max(again, b.epoch + SETTLE_IN - now) end
  end
  again = math.min(again, AGAIN)
  redis.call('HSET', tickets, id, struct.pack('<dd', cost, now + again + GRACE))
  redis.call('PEXPIRE', tickets, TTL)
  redis.call('PEXPIRE', lines[class], TTL)
  return turn(0, 0, 0, 0, after, again)
end

local function settle()
  local actual, left, size, rate, _, at, spent, refunded = struct.unpack('<dddddddd', ARGV[4], 41)
  local known = redis.call('HDEL', way, id) == 1 -- and let go by this memory: another begins with none under way
  local lower, upper = -math.huge, left
  if known then
    if actual < 0 then actual = cost end
    b.probes = math.max(0, b.probes - 1)
    b.way = math.max(0, b.way - cost)
    b.left = b.left + cost - actual
    lower = left - b.way - (b.spent - spent)
    upper = left + (b.refunded - refunded) + rate * math.max(0, now - at)
    b.spent = b.spent + actual
    b.refunded = b.refunded + math.max(0, cost - actual)
    if size > 0 then
      b.asked = b.asked * 0.98 + cost
      b.taken = b.taken * 0.98 + math.min(actual, cost)
    end
  end
  if size > 0 then
    if b.known == 0 then
      b.known = 1
      b.left = left - b.way
    elseif b.left > upper then
      b.margin = math.min(math.max(b.margin, b.left - upper), 0.05 * size)
      b.left = upper
    elseif b.left < lower then
      b.left = lower
    end
    b.size, b.rate = size, rate
    b.left = math.min(b.left, b.size - b.way)
  end
  hint()
end

rewind()
expire()
advance()
local answer = 0
if op == 'take' then
  answer = take()
elseif op == 'settle' then
  settle()
elseif op == 'lost' then -- it may still arrive
  local old = redis.call('HGET', way, id)
  if old then
    local c, at, spent, refunded, _, probe = struct.unpack('<dddddd', old)
    redis.call('HSET', way, id, struct.pack('<dddddd', c, at, spent, refunded, now + LOST, -1)) -- -1: lost
    b.probes = math.max(0, b.probes - math.max(0, probe)) -- another may ask
    if probe >= 0 then b.lost = b.lost + c end
    if b.ends == 0 or now + LOST < b.ends then b.ends = now + LOST end
  end
else -- leave: also if it was let go in the moment that nobody waited any more
  leave()
  if redis.call('HDEL', way, id) == 1 then
    b.probes = math.max(0, b.probes - 1)
    b.way = math.max(0, b.way - cost)
    b.left = b.left + cost
    b.refunded = b.refunded + cost
  end
  hint()
end
save()
return answer
