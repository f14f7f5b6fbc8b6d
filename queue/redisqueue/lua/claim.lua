-- ARGV: queue, process, number, the same in base 36, 1 for a repetition, lease in µs, jobs at most, every which turn is bulk's;
-- how many tokens the process holds, they; how many settlements, each: token, action, and unless that is 0, an Ack and nothing else, after in µs, 1 to
-- park, error, its beginning for the history, percent or nothing, note, result or nothing (1 and it), how many jobs follow, each: queue, job.
call('DEL', KEYS[1]) -- a full Redis lets a script that has begun with this go on
local q = open(ARGV[1])
if not q then
	return NEWER
end
local process, number, again = ARGV[2], tonumber(ARGV[3]), ARGV[5] == '1'
local lease, max, every = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local prefix = process .. '.' .. ARGV[4] .. '.'
local out = {lost = {}, died = {}, enq = {}, jobs = {}}

local ACK, RETRY, SNOOZE, RELEASE = 1, 2, 3, 5 -- queue.Action

-- settle ends a lease. s is where the settlement stands in ARGV; nil gives the lane back.
local function settle(lane, t, s)
	local g = split(lane)
	local action, after = RELEASE, 0
	local plain = s and ARGV[s + 1] == '0'
	if plain then
		action = ACK
	elseif s then
		action, after = tonumber(ARGV[s + 1]), tonumber(ARGV[s + 2])
		if ARGV[s + 6] ~= '' then
			progress(q, t, ARGV[s + 6], ARGV[s + 7])
		end
	end
	local mark = marked(q, lane)
	unlease(q, lane, g)
	local i
	if mark or t.id or action ~= ACK and action ~= RELEASE then
		i = first(q, lane)
		if not i then
			return -- somebody has deleted it
		end
	end
	if mark then
		call('HDEL', q.k .. 'gone', i.id)
		q.gone = q.gone - 1
	end
	if mark and action ~= ACK then
		finish(q, i, 'cancelled', '')
		pop(q, lane)
	elseif action == ACK then
		if t.id then
			finish(q, i, 'succeeded', '', not plain and sub(ARGV[s + 8], 2))
		end
		pop(q, lane)
		if not plain and ARGV[s + 9] ~= '0' then
			flush_gone(q) -- one of them may enter a lane that this has emptied
			local f = s + 10
			for _ = 1, tonumber(ARGV[s + 9]) do
				local before = accept(open(ARGV[f]), f + 1)
				out.enq[#out.enq + 1] = {before or id_of(ARGV[f + 1]), before and 1 or 0}
				f = f + 1 + ACCEPT
			end
		end
	elseif action == RELEASE then
		if t.id then
			note(q, t.id, 'run', 0)
		end
		ready_head(q, lane, t.claim)
	else
		local err = ARGV[s + 4]
		if action == RETRY then
			i.attempts = i.attempts + 1
			rewrite(q, i, ARGV[s + 5])
			if i.tracked then
				note(q, i.id, 'e', err)
			end
			if i.attempts >= i.max then
				pop(q, lane)
				die(q, i, err, out)
			elseif late(q, i.h, i.r) then
				pop(q, lane)
				die(q, i, 'deadline: ' .. err, out)
			elseif i.relaxed then
				pop(q, lane)
				if after > 0 then
					schedule(q, i, at(q, after))
				else
					moved(q, i, lane)
					append(q, lane, i.h, i.r)
				end
			else
				set(q, i)
				moved(q, i, lane)
				wait(q, lane, after)
			end
		elseif action == SNOOZE then
			if late(q, i.h, i.r) then
				pop(q, lane)
				die(q, i, err == '' and 'deadline' or 'deadline: ' .. err, out)
			else
				moved(q, i, lane)
				wait(q, lane, after)
			end
		else -- a Kill
			rewrite(q, i, ARGV[s + 5])
			pop(q, lane)
			die(q, i, err, out)
		end
	end
	if q.limits > 0 then
		sit(q, g)
	end
	if s and not plain and ARGV[s + 3] == '1' then
		park(q, g, after)
	end
end

-- crashed takes a lane over whose worker let the lease end.
local function crashed(lane)
	local g = split(lane)
	local mark = marked(q, lane)
	unlease(q, lane, g)
	local i = first(q, lane)
	if not i then
		return -- somebody has deleted it
	end
	if mark then
		call('HDEL', q.k .. 'gone', i.id)
		q.gone = q.gone - 1
		finish(q, i, 'cancelled', '')
		pop(q, lane)
	elseif i.opaque then
		ready_tail(q, lane)
	else
		i.crashes = i.crashes + 1
		rewrite(q, i, 'the lease ended without a word of its worker')
		if i.crashes >= i.maxcrashes then
			pop(q, lane)
			die(q, i, format('crashed its worker %d times', i.crashes), out)
		else
			set(q, i)
			moved(q, i, lane)
			ready_tail(q, lane)
		end
	end
	if q.limits > 0 then
		sit(q, g)
	end
end

-- take_up makes what is due ready, oldest first, and what its worker has lost.
local function take_up()
	local due = call('ZRANGEBYSCORE', q.k .. 'due', '-inf', q.now, 'LIMIT', 0, TAKEUP)
	if #due > 0 then
		for _, m in ipairs(due) do
			local what, name = sub(m, 1, 1), sub(m, 2)
			if what == 'p' then
				unpark(q, name)
			else
				call('ZREM', q.k .. 'due', m)
				if what == 'l' then
					ready_tail(q, name)
				else
					local e = call('HGET', q.k .. 'sched', name)
					if e then
						call('HDEL', q.k .. 'sched', name)
						local i = cleave(e)
						moved(q, i, i.lane)
						append(q, i.lane, i.h, i.r)
					end
				end
			end
		end
	end
	flush_leases(q)
	local ended = call('ZRANGEBYSCORE', q.k .. 'lease', '-inf', q.now, 'WITHSCORES', 'LIMIT', 0, TAKEUP)
	for n = 1, #ended, 2 do
		local lane, ends = ended[n], tonumber(ended[n + 1])
		local t = holder(q, lane)
		if not t then -- somebody has deleted its token: nobody can hold it
			t = {lease = 0, spared = 1}
		end
		if ends > q.from and ends <= q.to and t.spared == 0 then
			t.spared = 1
			keep(q, lane, t)
			call('ZADD', q.k .. 'lease', int(at(q, t.lease)), lane)
		else
			crashed(lane)
		end
	end
	flush_leases(q)
end

-- A class's ring as far as it has been read: groups from its head, and those that have had their turn since.
local rings = {}

-- flush_ring writes the new places of those that have had a turn, without those that have no lane left: one look tells whether
-- there are such, which is seldom.
local function flush_ring(r)
	local list, had = {}, {}
	for g, turn in pairs(r.moved) do
		list[#list + 1] = int(turn)
		list[#list + 1] = g
		had[#had + 1] = q.k .. 'r:' .. r.c .. g
	end
	if #list == 0 then
		return
	end
	r.moved = {}
	if q.released > 0 or call('EXISTS', unpack(had)) < #had then
		local gone = {}
		for n = #list, 2, -2 do
			if ready_count(q, list[n], r.c) == 0 then
				gone[#gone + 1] = list[n]
				table.remove(list, n)
				table.remove(list, n - 1)
			end
		end
		many('ZREM', q.k .. 'ring:' .. r.c, gone)
	end
	many('ZADD', q.k .. 'ring:' .. r.c, list)
end

-- leave_now takes a group out of a ring that has no lane left.
local function leave_now(r, g)
	r.at = r.at + 1
	r.moved[g] = nil
	call('ZREM', q.k .. 'ring:' .. r.c, g)
end

local function ring_of(c)
	local r = rings[c]
	if not r then
		r = {c = c, list = {}, at = 1, moved = {}}
		rings[c] = r
	end
	if r.at > #r.list and not r.whole then
		flush_adds(q)
		flush_ring(r)
		local want = max + 8
		r.list = call('ZRANGE', q.k .. 'ring:' .. c, 0, want - 1)
		read_held(q, r.list)
		r.at = 1
		r.whole = #r.list < want
	end
	return r
end

local function to_tail(r, g)
	r.moved[g] = seq(q)
	r.at = r.at + 1
	if r.whole then
		r.list[#r.list + 1] = g
	end
end

local function flush_rings()
	for _, r in pairs(rings) do
		flush_ring(r)
	end
end

-- forget_rings makes the next turn read them anew.
local function forget_rings()
	flush_rings()
	rings = {}
end

local tokens, ends = {}, {}

-- take leases the next lane. It answers 1 if it did, 2 if the job was past its deadline and died, 3 if the group had none left, and nothing
-- if no group has.
local function take()
	local r, c = ring_of('l'), 'l'
	if not r.list[r.at] or (q.turns + 1) % every == 0 then
		local b = ring_of('b')
		if b.list[b.at] then
			r, c = b, 'b'
		end
	end
	local g = r.list[r.at]
	if not g then
		return nil
	end
	local lane
	if q.released > 0 then
		lane = call('ZPOPMIN', q.k .. 'R:' .. c .. g)[1]
		if lane then
			q.released = q.released - 1
		end
	end
	lane = lane or call('LPOP', q.k .. 'r:' .. c .. g)
	if not lane then -- it has had its last lane in this call
		leave_now(r, g)
		return 3
	end
	local h, rec = raw(q, lane)
	if not h then -- somebody has deleted keys: what is left goes on
		forget_rings()
		sit(q, g)
		return 2
	end
	if late(q, h, rec) then
		local i = info(h, rec)
		i.lane = lane
		pop(q, lane) -- before the ring is written, which takes out who has no lane: the turn is not spent
		die(q, i, 'deadline', out)
		forget_rings()
		sit(q, g)
		return 2
	end
	q.turns = q.turns + 1
	local claim = seq(q)
	local token = prefix .. #out.jobs / 4
	local id
	if byte(rec) == 1 and #rec > 1 and byte(rec, 2) % 8 >= 4 then
		id = id_of(rec)
		note(q, id, 'p', 0, 't', '', 'run', 1)
	end
	q.tk[lane] = nil
	tokens[#tokens + 1] = lane
	tokens[#tokens + 1] = pack('>ddB', lease, claim, 0) .. token .. (id and '@' .. id or '')
	ends[#ends + 1] = int(at(q, lease))
	ends[#ends + 1] = lane
	hold(q, g, 1)
	local jobs, at_job = out.jobs, #out.jobs
	jobs[at_job + 1], jobs[at_job + 2], jobs[at_job + 3], jobs[at_job + 4] = lane, h, rec, at_job / 4
	if q.limits > 0 then
		local cap, weight = limits(q, g)
		local used = tonumber(call('HGET', q.k .. 'used', c .. g) or 0) + 1
		if cap > 0 and held(q, g) >= cap or ready_count(q, g, c) == 0 then
			forget_rings()
			sit(q, g)
		elseif used >= weight then
			call('HDEL', q.k .. 'used', c .. g)
			to_tail(r, g)
		else
			call('HSET', q.k .. 'used', c .. g, used)
		end
	else
		to_tail(r, g)
	end
	return 1
end

-- born is a head's number and time, which a replay changes.
local function born(h)
	return sub(h, 2, TAIL - 1)
end

local function due_in()
	local first = call('ZRANGE', q.k .. 'due', 0, 0, 'WITHSCORES')
	if not first[2] then
		return 0
	end
	return math.max(1, tonumber(first[2]) - q.now)
end

local function answer(now, dueIn)
	return {int(now), int(dueIn), out.lost, out.died, out.enq, out.jobs}
end

local a = 9
local nheld = tonumber(ARGV[a])
local first_held = a + 1
a = first_held + nheld
local nsettle = tonumber(ARGV[a])
a = a + 1

-- places of the settlements
local settlements = {}
for n = 1, nsettle do
	settlements[n] = a
	if ARGV[a + 1] == '0' then
		a = a + 2
	else
		for f = 0, tonumber(ARGV[a + 9]) - 1 do
			if not open(ARGV[a + 10 + f * (1 + ACCEPT)]) then
				return NEWER
			end
		end
		a = a + 10 + tonumber(ARGV[a + 9]) * (1 + ACCEPT)
	end
end

local known = call('GET', q.k .. 'a:' .. process)
if known then
	local last = cmsgpack.unpack(known)
	if last.number == number then
		-- The same answer: the jobs are still where they were, or lost.
		out.lost, out.enq = last.lost, last.enq
		for n = 1, #last.died, 2 do
			local id = last.died[n]
			local d = call('HGET', q.k .. 'deadrec', id)
			if d then
				local reason, i = letter(d)
				if born(i.h) == last.died[n + 1] then -- else it was replayed, and has died again
					out.died[#out.died + 1] = {id, reason, int(call('ZSCORE', q.k .. 'dead', id)), i.h, without_payload(i)}
				end
			end
		end
		local changed = false
		for n, lane in ipairs(last.lanes) do
			local t = holder(q, lane)
			if t and t.token == prefix .. (n - 1) then
				if marked(q, lane) == 'p' then
					settle(lane, t, nil) -- nobody gets what is left of a purged job
					changed = true
				else
					local h, r = raw(q, lane)
					if h then
						local at_job = #out.jobs
						out.jobs[at_job + 1], out.jobs[at_job + 2], out.jobs[at_job + 3], out.jobs[at_job + 4] = lane, h, r, n - 1
					end
				end
			end
		end
		if changed then
			close_all(q)
		end
		return answer(last.now, last.due)
	end
	if number < last.number then -- given up long ago, and only now here: nobody waits for what it would lease
		for n = 1, nsettle do
			out.lost[n] = n - 1
		end
		return answer(q.now, 0)
	end
end

ran(q)

if again then
	local mine = {}
	for n = 0, nheld - 1 do
		mine[ARGV[first_held + n]] = true
	end
	for n = 1, nsettle do
		mine[ARGV[settlements[n]]] = true
	end
	local others = {}
	local all = call('HGETALL', q.k .. 'tok')
	for n = 1, #all, 2 do
		local lane = all[n]
		if sub(all[n + 1], 18, 17 + #process + 1) == process .. '.' then
			local t = holder(q, lane)
			if not mine[t.token .. '@' .. lane] then
				others[#others + 1] = {lane, t}
			end
		end
	end
	table.sort(others, function(x, y) return x[2].claim < y[2].claim end)
	for _, o in ipairs(others) do
		settle(o[1], o[2], nil)
	end
end

local tokens_in = {}
for n = 1, nsettle do
	tokens_in[n] = ARGV[settlements[n]]
end
local lanes_in, owns_in = read_holders(q, tokens_in)
for n = 1, nsettle do
	local s = settlements[n]
	local lane, own = lanes_in[n], owns_in[n]
	local v = lane and q.tk[lane]
	if v and ARGV[s + 1] == '0' and q.gone == 0 and q.limits == 0 and sub(v, 18) == own then
		-- An Ack of a job that nobody tracks, as most are.
		unlease(q, lane, (split(lane)))
		pop(q, lane)
	else
		local t = holding(q, lane, own)
		if t then
			settle(lane, t, s)
		else
			out.lost[#out.lost + 1] = n - 1
		end
	end
end

flush_gone(q)
take_up() -- after the settlements: a lease past its end still counts until it is taken up

-- A job may have megabytes, and an answer holds up everybody: it ends early rather than be much larger than this.
local ANSWER = 4194304

local dead, bytes = 0, 0
while #out.jobs < 4 * max and dead < TAKEUP and bytes < ANSWER and q.paused == 0 do
	local took = take()
	if not took then
		break
	end
	if took == 2 then
		dead = dead + 1
	elseif took == 1 then
		bytes = bytes + #out.jobs[#out.jobs - 1]
	end
end
flush_rings()
if #tokens > 0 then
	many('HSET', q.k .. 'tok', tokens)
	many('ZADD', q.k .. 'lease', ends)
end
local dueIn = due_in()
if dead == TAKEUP then
	dueIn = 1 -- look again
end
local lanes, ids = {}, {}
for n = 1, #out.jobs, 4 do
	lanes[#lanes + 1] = out.jobs[n]
end
for _, d in ipairs(out.died) do
	ids[#ids + 1] = d[1]
	ids[#ids + 1] = born(d[4])
end
call('SET', q.k .. 'a:' .. process, cmsgpack.pack({number = number, lanes = lanes, died = ids, lost = out.lost, enq = out.enq, now = q.now, due = dueIn}), 'PX', 600000)
close_all(q)
return answer(q.now, dueIn)
