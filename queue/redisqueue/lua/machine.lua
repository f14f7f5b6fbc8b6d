-- The machine of docs/queue.md over the keys of one partition. Every script begins with this text and works on the queues that it
-- opens. KEYS are two guards that never exist: their hash tag says where the partition is, and two of them keep a script
-- from running where its keys are only half (docs/redis.md). A script reads all that may be refused before it writes: Redis undoes nothing.
--
-- Of a queue, with the prefix k:
--   m          its meta record: the format of all that it keeps, and numbers, packed
--   l:LANE     LIST of a lane's jobs, two elements each; the first job stays until it is settled
--   r:CGROUP   LIST of a group's ready lanes of class C; R:CGROUP ZSET of those that were given back: they come first, by claim
--   ring:C     ZSET of groups by turn
--   lease      ZSET of leased lanes by the lease's end; tok HASH lane -> lease, claim, token: what is in both is leased
--   held       HASH group -> leased lanes;  lim HASH group -> cap, weight;  used HASH class and group -> lanes of this turn
--   due        ZSET by time: l and a waiting lane, s and a scheduled job's number, p and a parked group;  sched HASH number -> job
--   dead       ZSET id by time;  deadrec HASH id -> error and job
--   gone       HASH id -> c or p: jobs in lanes that are cancelled or purged and leave when they are the first and nobody has them
--   d:GROUPKEY dedupe, st:ID status, b:MINUTE HASH batch or operator's call -> answer, a:PROCESS last answer: end by themselves;  wake ZSET: somebody should look
-- LANE is the length of the group, l or b (L or B without a key), the group, the key (or the job's ID).
-- A job is two elements: a head, which changes, and the record that it came with (record.go), which never does, and which scripts look
-- into only where they must. A head is its format, number and time; once something has gone wrong also attempts, crashes and the history.
-- sched and deadrec have all in one: the lengths of its lane and its head, the lane, the head, the record.
-- Of the partition: queues SET of the queues' names, partitions how many the space has, ahead by how much its clock is ahead of the server's, in µs.

local floor, format, sub, byte, find = math.floor, string.format, string.sub, string.byte, string.find
local pack, unpack_struct = struct.pack, struct.unpack
local P = sub(KEYS[1], 1, -3)
local META = '>Bdddddddddddd'
local FORMAT = 1 -- of all that a queue keeps
local HEAD = '>BI6I7'
local TAIL = 15 -- where a head goes on, after what each has
local TAKEUP = 128
local call = redis.call

-- many calls a command with many arguments, of which Lua can't hand on all at once.
local function many(command, key, list, flag)
	for from = 1, #list, 4000 do
		local to = math.min(#list, from + 3999)
		if not key then
			call(command, unpack(list, from, to))
		elseif flag then
			call(command, key, flag, unpack(list, from, to))
		else
			call(command, key, unpack(list, from, to))
		end
	end
end

-- fields reads many fields of a hash.
local function fields(key, list)
	local all = {}
	for from = 1, #list, 4000 do
		local to = math.min(#list, from + 3999)
		local got = call('HMGET', key, unpack(list, from, to))
		for n = 1, to - from + 1 do
			all[from + n - 1] = got[n]
		end
	end
	return all
end

-- int writes a whole number; Lua's own way is slow, and writes large ones with an exponent.
local function int(n)
	return format('%d', n)
end

local clock
local function time()
	if not clock then
		local t = call('TIME')
		clock = t[1] * 1000000 + t[2] + (call('GET', P .. 'ahead') or 0)
	end
	return clock
end

local queues = {}
local order = {}

-- NEWER is answered by a script that needs a queue of a later format; it has changed nothing then.
local NEWER = redis.error_reply('NEWERFORMAT the keys of this queue')

-- open reads a queue's meta record; nothing if a later version of this module has written it.
local function open(name)
	local q = queues[name]
	if q then
		return q
	end
	q = {k = P .. name .. ':', name = name, bump = 0, h = {}, hd = {}, tk = {}}
	local m = call('GET', q.k .. 'm')
	if m then
		if byte(m) ~= FORMAT then
			return nil
		end
		local _
		_, q.seq, q.turns, q.run, q.from, q.to, q.last, q.jobs, q.gone, q.released, q.parks, q.limits, q.paused = unpack_struct(META, m)
	else
		q.seq, q.turns, q.run, q.from, q.to, q.last, q.jobs, q.gone, q.released, q.parks, q.limits, q.paused = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
		q.new = true
	end
	-- The clock never goes back, and no two things are set for the same instant.
	q.now = time()
	if q.now <= q.last then
		call('INCRBY', P .. 'ahead', int(q.last + 1 - q.now))
		clock = q.last + 1
		q.now = clock
	end
	queues[name] = q
	order[#order + 1] = q
	return q
end

-- at is a time from now, later than any that was set for the same span before.
local function at(q, span)
	q.bump = q.bump + 1
	return q.now + span + q.bump - 1
end

local function seq(q)
	q.seq = q.seq + 1
	return q.seq
end

local function flush_adds(q)
	if q.addl then
		many('ZADD', q.k .. 'ring:l', q.addl, 'NX')
		q.addl = nil
	end
	if q.addb then
		many('ZADD', q.k .. 'ring:b', q.addb, 'NX')
		q.addb = nil
	end
end

local function flush_leases(q)
	if q.unl then
		many('ZREM', q.k .. 'lease', q.unl)
		many('HDEL', q.k .. 'tok', q.unl)
		q.unl = nil
	end
end

-- flush_gone deletes the lanes whose only job has left.
local function flush_gone(q)
	if q.empty then
		many('DEL', nil, q.empty)
		q.empty = nil
	end
end

local function flush_held(q)
	local set, del
	for g in pairs(q.hd) do
		local n = q.h[g]
		if n > 0 then
			set = set or {}
			set[#set + 1] = g
			set[#set + 1] = n
		else
			del = del or {}
			del[#del + 1] = g
		end
	end
	q.hd = {}
	if set then
		many('HSET', q.k .. 'held', set)
	end
	if del then
		many('HDEL', q.k .. 'held', del)
	end
end

-- close writes what has changed. look says that the marker must be right, not only set.
local function close(q, look)
	flush_gone(q)
	flush_leases(q)
	flush_adds(q)
	flush_held(q)
	if q.new then
		call('SADD', P .. 'queues', q.name)
	end
	call('SET', q.k .. 'm', pack(META, FORMAT, q.seq, q.turns, q.run, q.from, q.to, q.now + q.bump, q.jobs, q.gone, q.released, q.parks, q.limits, q.paused))
	if look then
		if q.paused == 0 and call('EXISTS', q.k .. 'ring:l', q.k .. 'ring:b') > 0 then
			call('ZADD', q.k .. 'wake', 0, '')
		else
			call('DEL', q.k .. 'wake')
		end
	elseif q.woken and q.paused == 0 then
		call('ZADD', q.k .. 'wake', 0, '')
	end
end

local function close_all(q)
	for i = 1, #order do
		close(order[i], order[i] == q)
	end
end

-- split reads a lane's name: its group and class.
local groups, classes = {}, {}
local function split(lane)
	local g = groups[lane]
	if g then
		return g, classes[lane]
	end
	local n, c = string.match(lane, '^(%d+)(%a)')
	local from = #n + 2
	g, c = sub(lane, from, from + n - 1), string.lower(c)
	groups[lane], classes[lane] = g, c
	return g, c
end

local function read(h, r)
	local i = {r = r}
	i.format, i.seq, i.since = unpack_struct(HEAD, h)
	if byte(r) ~= 1 then
		i.opaque = true
		i.h = h
		i.id, i.kind, i.group, i.key, i.dedupe, i.history = '', '', '', '', '', ''
		i.attempts, i.max, i.crashes, i.maxcrashes, i.keep = 0, 2 ^ 31, 0, 2 ^ 31, 0
		return i
	end
	local flags = byte(r, 2)
	i.relaxed = flags % 4 >= 2
	i.tracked = flags % 8 >= 4
	local kh, kl, codec, at
	i.attempts, i.max, i.crashes, i.maxcrashes = unpack_struct('>I4I4I4I4', r, 3)
	kh, kl = unpack_struct('>I4I4', r, 35)
	i.keep = kh * 4294967296 + kl
	i.id, i.kind, i.group, i.key, i.dedupe, codec, at = unpack_struct('>Hc0Hc0Hc0Hc0Hc0Hc0', r, 43)
	local len = unpack_struct('>I4', r, at)
	if #h >= TAIL then
		i.attempts, i.crashes = unpack_struct('>I4I4', h, TAIL)
		i.history = sub(h, TAIL + 8)
	else
		i.history = sub(r, at + 4, at + 3 + len)
	end
	at = at + 4 + len
	i.payload = at + 4 + unpack_struct('>I4', r, at)
	i.h = h
	return i
end

-- info reads what scripts need of a job. Of a record in a newer format nothing is known: it never ends by itself. What is damaged can be
-- moved, and dies at its first failure or crash.
local function info(h, r)
	local ok, i = pcall(read, h, r)
	if ok then
		return i
	end
	local number = #h >= TAIL - 1 and unpack_struct('>I6', h, 2) or 0
	return {
		damaged = true, h = h, r = r, seq = number, since = 0, id = 'damaged-' .. int(number), kind = '', group = '', key = '', dedupe = '',
		attempts = 0, max = 1, crashes = 0, maxcrashes = 1, keep = 0, history = '',
	}
end

-- raw reads the head and record of a lane's first job; nothing if there is none.
local function raw(q, lane)
	local hr = call('LRANGE', q.k .. 'l:' .. lane, 0, 1)
	if not hr[2] then
		return nil
	end
	return hr[1], hr[2]
end

-- first reads a lane's first job; nothing if there is none.
local function first(q, lane)
	local h, r = raw(q, lane)
	if not h then
		return nil
	end
	local i = info(h, r)
	i.lane = lane
	return i
end

local function join(i)
	return pack('>I4H', #i.lane, #i.h) .. i.lane .. i.h .. i.r
end

local function cleave(s)
	local ok, lane, h = pcall(unpack_struct, '>I4H', s)
	if not ok or #s < 6 + lane + h then
		local i = info('', s)
		i.lane = '0L' .. i.id
		return i
	end
	local i = info(sub(s, 7 + lane, 6 + lane + h), sub(s, 7 + lane + h))
	i.lane = sub(s, 7, 6 + lane)
	return i
end

-- letter reads a dead letter: its error and job.
local function letter(d)
	local n = #d >= 4 and unpack_struct('>I4', d) or 0
	return sub(d, 5, 4 + n), cleave(sub(d, 5 + n))
end

-- id_of reads the ID off a record.
local function id_of(r)
	if byte(r) ~= 1 or #r < 44 or #r < 44 + unpack_struct('>H', r, 43) then
		return ''
	end
	return (unpack_struct('>Hc0', r, 43))
end

-- first_id is the ID of a lane's first job.
local function first_id(q, lane)
	local r = call('LINDEX', q.k .. 'l:' .. lane, 1)
	return r and id_of(r)
end

local function late(q, h, r)
	if byte(r) ~= 1 or #r < 42 or #h < TAIL - 1 then
		return false
	end
	local _, _, since = unpack_struct(HEAD, h)
	local dh, dl = unpack_struct('>I4I4', r, 27)
	return q.now - since > (dh * 4294967296 + dl) * 1000
end

local function ms(q)
	return floor(q.now / 1000)
end

-- rewrite makes a job's head anew. text, if given, joins the history, which keeps its first and last 10.
local function rewrite(q, i, text)
	if i.opaque or i.damaged then
		return
	end
	if text then
		local entries, pos, number = {}, 1, 0
		while pos <= #i.history do
			local n, size = unpack_struct('>I4', i.history, pos), unpack_struct('>H', i.history, pos + 12)
			entries[#entries + 1] = sub(i.history, pos, pos + 13 + size)
			number = n
			pos = pos + 14 + size
		end
		if #entries >= 20 then
			table.remove(entries, 11)
		end
		local t = ms(q)
		entries[#entries + 1] = pack('>I4I4I4H', number + 1, floor(t / 4294967296), t % 4294967296, #text) .. text
		i.history = table.concat(entries)
	end
	i.h = pack(HEAD, i.format, i.seq, i.since) .. pack('>I4I4', i.attempts, i.crashes) .. i.history
end

-- set writes a head that has changed.
local function set(q, i)
	call('LSET', q.k .. 'l:' .. i.lane, 0, i.h)
end

-- without_payload is the record of a dead letter as workers are told of it.
local function without_payload(i)
	return sub(i.r, 1, i.payload and i.payload - 1 or 64) -- of one that can't be read, enough to say so
end

local function held(q, g)
	local n = q.h[g]
	if not n then
		n = tonumber(call('HGET', q.k .. 'held', g) or 0)
		q.h[g] = n
	end
	return n
end

-- read_held reads what several groups have in flight.
local function read_held(q, list)
	local want, n = {}, 0
	for _, g in ipairs(list) do
		if not q.h[g] then
			q.h[g] = 0
			n = n + 1
			want[n] = g
		end
	end
	if n > 0 then
		local got = fields(q.k .. 'held', want)
		for i = 1, n do
			q.h[want[i]] = tonumber(got[i] or 0)
		end
	end
end

local function hold(q, g, d)
	q.h[g] = held(q, g) + d
	q.hd[g] = true
end

-- limits of a group: cap, 0 for none, and weight.
local function limits(q, g)
	if q.limits == 0 then
		return 0, 1
	end
	local v = call('HGET', q.k .. 'lim', g)
	if not v then
		return 0, 1
	end
	local c, w = string.match(v, '^(%d+) (%d+)$')
	return tonumber(c), math.max(1, tonumber(w))
end

local function parked(q, g)
	return q.parks > 0 and call('ZSCORE', q.k .. 'due', 'p' .. g)
end

local function open_to(q, g)
	if parked(q, g) then
		return false
	end
	local cap = limits(q, g)
	return cap == 0 or held(q, g) < cap
end

-- enter puts a group that has a ready lane at the tail of its class's ring, unless it is there, parked or at its cap.
local function enter(q, g, c)
	if (q.parks > 0 or q.limits > 0) and not open_to(q, g) then
		return
	end
	local adds = 'add' .. c
	local list = q[adds]
	if not list then
		list = {}
		q[adds] = list
	end
	list[#list + 1] = int(seq(q))
	list[#list + 1] = g
	q.woken = true
end

local function leave(q, g, c)
	flush_adds(q)
	call('ZREM', q.k .. 'ring:' .. c, g)
	if q.limits > 0 then
		call('HDEL', q.k .. 'used', c .. g)
	end
end

local function ready_count(q, g, c)
	local n = call('LLEN', q.k .. 'r:' .. c .. g)
	if q.released > 0 then
		n = n + call('ZCARD', q.k .. 'R:' .. c .. g)
	end
	return n
end

-- sit derives a group's places in both rings.
local function sit(q, g)
	flush_adds(q)
	local may = open_to(q, g)
	for _, c in ipairs({'l', 'b'}) do
		local inside = call('ZSCORE', q.k .. 'ring:' .. c, g)
		if may and ready_count(q, g, c) > 0 then
			if not inside then
				enter(q, g, c)
			end
		elseif inside then
			leave(q, g, c)
		end
	end
	flush_adds(q)
end

local function ready_tail(q, lane)
	local g, c = split(lane)
	if call('RPUSH', q.k .. 'r:' .. c .. g, lane) == 1 then
		enter(q, g, c)
	end
end

local function ready_head(q, lane, claim)
	local g, c = split(lane)
	call('ZADD', q.k .. 'R:' .. c .. g, claim, lane)
	q.released = q.released + 1
	enter(q, g, c)
end

-- unready takes a ready lane out of its group's list.
local function unready(q, lane)
	local g, c = split(lane)
	if q.released > 0 and call('ZREM', q.k .. 'R:' .. c .. g, lane) == 1 then
		q.released = q.released - 1
	else
		call('LREM', q.k .. 'r:' .. c .. g, 1, lane)
	end
end

local function st(q, id)
	return q.k .. 'st:' .. id
end

local function track(q, i, where)
	local key = st(q, i.id)
	call('DEL', key)
	call('HSET', key, 'k', i.kind, 'g', i.group, 'y', i.key, 'n', i.seq, 'keep', i.keep, 'w', where, 'p', 0, 't', '', 'e', '', 's', '', 'a', i.attempts, 'c', i.crashes, 'i', i.since)
end

-- note writes to a tracked job's status, if there is one.
local function note(q, id, ...)
	local key = st(q, id)
	if call('EXISTS', key) == 1 then
		call('HSET', key, ...)
		return true
	end
	return false
end

local function finish(q, i, state, reason, result)
	if not i.tracked then
		return
	end
	local key = st(q, i.id)
	if not note(q, i.id, 's', state, 'a', i.attempts, 'c', i.crashes, 'i', i.since, 'x', q.now, 'run', 0) then
		return
	end
	if state == 'succeeded' then
		call('HSET', key, 'p', 100, 'r', result or '')
	elseif reason ~= '' then
		call('HSET', key, 'e', reason)
	end
	call('PEXPIRE', key, math.max(1, math.min(i.keep, 3e12)))
end

-- moved notes where a tracked job is.
local function moved(q, i, where)
	if i.tracked then
		note(q, i.id, 'w', where, 'run', 0, 'a', i.attempts, 'c', i.crashes, 'i', i.since)
	end
end

local function bury(q, i, reason)
	finish(q, i, 'dead', reason)
	call('ZADD', q.k .. 'dead', ms(q), i.id)
	call('HSET', q.k .. 'deadrec', i.id, pack('>I4', #reason) .. reason .. join(i))
end

local function die(q, i, reason, out)
	bury(q, i, reason)
	out.died[#out.died + 1] = {i.id, reason, int(ms(q)), i.h, without_payload(i)}
end

local function schedule(q, i, due)
	local n = format('%016.0f', seq(q))
	local first = call('ZRANGE', q.k .. 'due', 0, 0, 'WITHSCORES')
	if not first[2] or due < tonumber(first[2]) then
		q.woken = true -- a worker that sleeps must know when to look
	end
	call('ZADD', q.k .. 'due', int(due), 's' .. n)
	call('HSET', q.k .. 'sched', n, join(i))
	moved(q, i, 's' .. n)
end

local function append(q, lane, h, r)
	flush_gone(q)
	q.jobs = q.jobs + 1
	if call('RPUSH', q.k .. 'l:' .. lane, h, r) == 2 then
		ready_tail(q, lane)
	end
end

-- shift takes a lane's first job away, and those after it that are cancelled. It says whether there is another one.
local function shift(q, lane)
	local key = q.k .. 'l:' .. lane
	q.jobs = q.jobs - 1
	if q.gone == 0 then
		if call('LLEN', key) > 2 then
			call('LTRIM', key, 2, -1)
			return true
		end
		if not q.empty then
			q.empty = {}
		end
		q.empty[#q.empty + 1] = key
		return false
	end
	call('LTRIM', key, 2, -1)
	while q.gone > 0 do
		local id = first_id(q, lane)
		if not id then
			return false
		end
		if call('HDEL', q.k .. 'gone', id) == 0 then
			return true
		end
		q.gone = q.gone - 1
		q.jobs = q.jobs - 1
		call('LTRIM', key, 2, -1)
	end
	return call('EXISTS', key) == 1
end

-- pop ends a head that is in no list; the lane is ready again if it has another job.
local function pop(q, lane)
	if shift(q, lane) then
		ready_tail(q, lane)
	end
end

local function wait(q, lane, after)
	if after <= 0 then
		ready_tail(q, lane)
		return
	end
	call('ZADD', q.k .. 'due', int(at(q, after)), 'l' .. lane)
end

local function unlease(q, lane, g)
	if not q.unl then
		q.unl = {}
	end
	q.unl[#q.unl + 1] = lane
	q.tk[lane] = false
	hold(q, g, -1)
end

-- Parks.

local function unpark(q, g)
	if call('ZREM', q.k .. 'due', 'p' .. g) == 1 then
		q.parks = q.parks - 1
	end
	sit(q, g)
end

local function park(q, g, span)
	if span <= 0 then
		if parked(q, g) then
			unpark(q, g)
		end
		return
	end
	q.parks = q.parks + call('ZADD', q.k .. 'due', int(at(q, span)), 'p' .. g)
	sit(q, g)
end

-- Tokens. What is kept of one: '>ddB' lease, claim, whether it was spared; the token's own part; of a tracked job, @ and its ID.

local function holder(q, lane)
	local v = q.tk[lane]
	if v == nil then
		v = call('HGET', q.k .. 'tok', lane)
		q.tk[lane] = v
	end
	if not v then
		return nil
	end
	local t = {}
	local rest
	t.lease, t.claim, t.spared = unpack_struct('>ddB', v)
	rest = sub(v, 18)
	local cut = find(rest, '@', 1, true)
	if cut then
		t.token, t.id = sub(rest, 1, cut - 1), sub(rest, cut + 1)
	else
		t.token = rest
	end
	return t
end

local function keep(q, lane, t)
	q.tk[lane] = pack('>ddB', t.lease, t.claim, t.spared) .. t.token .. (t.id and '@' .. t.id or '')
	call('HSET', q.k .. 'tok', lane, q.tk[lane])
end

-- lane_in reads the lane that a token names; nothing if it is no token.
local function lane_in(token)
	local cut = find(token, '@', 1, true)
	if not cut then
		return nil
	end
	local lane = sub(token, cut + 1)
	if not find(lane, '^%d+%a') then
		return nil
	end
	return lane, sub(token, 1, cut - 1)
end

-- read_holders reads who holds the lanes of several tokens. It answers the lanes, and the tokens' own parts; false for what is no token.
local function read_holders(q, tokens)
	local want, n, lanes, owns = {}, 0, {}, {}
	for at, token in ipairs(tokens) do
		local lane, own = lane_in(token)
		lanes[at], owns[at] = lane or false, own
		if lane and q.tk[lane] == nil then
			q.tk[lane] = false
			n = n + 1
			want[n] = lane
		end
	end
	if n > 0 then
		local got = fields(q.k .. 'tok', want)
		local list = {}
		for i = 1, n do
			q.tk[want[i]] = got[i]
			if got[i] then
				list[#list + 1] = (split(want[i]))
			end
		end
		read_held(q, list)
	end
	return lanes, owns
end

-- holding is the lease of a lane, if it is the token's.
local function holding(q, lane, own)
	local t = lane and holder(q, lane)
	if not t or t.token ~= own then
		return nil
	end
	return t
end

-- ran notes that something runs. If nothing did for so long that leases may have ended for want of anybody who could
-- extend them, they get another chance when they are taken up.
local function ran(q)
	local first = call('ZRANGE', q.k .. 'lease', 0, 0, 'WITHSCORES')
	if first[1] then
		local ends = tonumber(first[2])
		if ends <= q.now then
			local t = holder(q, first[1])
			local lease = t and t.lease or 0
			if q.now - q.run > lease * 2 / 3 then
				if ends > q.to then
					q.from = q.run
				end
				q.to = q.now
			end
		end
	end
	q.run = q.now
end

-- marked says whether the head of a lane is cancelled or purged; it may only be asked where there are such.
local function marked(q, lane)
	if q.gone == 0 then
		return nil
	end
	local id = first_id(q, lane)
	return id and call('HGET', q.k .. 'gone', id) or nil
end

local function progress(q, t, percent, text)
	if not t.id then
		return
	end
	local key = st(q, t.id)
	local was = call('HGET', key, 'p')
	if was and tonumber(percent) >= tonumber(was) then
		call('HSET', key, 'p', math.min(100, tonumber(percent)), 't', text)
	end
end

-- accept takes a job from ARGV: record, lane, dedupe key, how long that counts in ms, what to keep with it (ID, kind and key), and of a
-- job that is not due at once delay, time of NotBefore in µs and a dead one's error, each after a space. It answers the ID of the job that
-- has the dedupe key, if another one has.
local ACCEPT = 6
local function accept(q, a)
	local r, lane, dedupe, extra = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 5]
	local n = seq(q)
	if dedupe ~= '' then
		local key = q.k .. 'd:' .. dedupe
		if not call('SET', key, pack('>I6', n) .. ARGV[a + 4], 'NX', 'PX', ARGV[a + 3]) then
			return (unpack_struct('>Hc0', call('GET', key), 7))
		end
	end
	if extra == '' and byte(r, 2) % 8 < 4 then
		append(q, lane, pack(HEAD, FORMAT, n, q.now), r)
		return nil
	end
	local due, dead = q.now, ''
	if extra ~= '' then
		local delay, notbefore
		delay, notbefore, dead = string.match(extra, '^(%d+) (%d+) (.*)$')
		if dead == '' then
			due = math.max(delay == '0' and q.now or at(q, delay), tonumber(notbefore)) -- equal times of NotBefore go by the order of acceptance
		end
	end
	local i = info(pack(HEAD, FORMAT, n, due), r)
	i.lane = lane
	if i.tracked then
		track(q, i, lane)
	end
	if dead ~= '' then
		bury(q, i, dead)
	elseif due > q.now then
		schedule(q, i, due)
	else
		append(q, lane, i.h, r)
	end
	return nil
end

-- What was answered to batches and operators' calls is remembered by the minute, for two to three minutes.

local function recall(q, ids)
	local answers = {}
	local minute = floor(q.now / 60000000)
	for m = minute - 2, minute do
		local got = fields(q.k .. 'b:' .. m, ids)
		for n = 1, #ids do
			answers[n] = got[n] or answers[n]
		end
	end
	return answers
end

-- remember takes IDs and answers in turn.
local function remember(q, list)
	local key = q.k .. 'b:' .. floor(q.now / 60000000)
	many('HSET', key, list)
	call('PEXPIRE', key, 180000)
end
