-- ARGV: queue, an ID of the call, what to do, and its arguments. A call that was seen in the last two minutes gets the same answer.
call('DEL', KEYS[1])
local q = open(ARGV[1])
if not q then
	return NEWER
end
local seen = recall(q, {ARGV[2]})[1]
if seen then
	return cmsgpack.unpack(seen)
end
local what = ARGV[3]

-- vacate takes a lane's head away that nobody has.
local function vacate(lane)
	local g = split(lane)
	if call('ZREM', q.k .. 'due', 'l' .. lane) == 1 then -- what is behind it need not wait
		pop(q, lane)
	elseif not shift(q, lane) then -- a ready lane keeps its place
		unready(q, lane)
	end
	sit(q, g)
end

local function unschedule(number)
	local e = call('HGET', q.k .. 'sched', number)
	call('HDEL', q.k .. 'sched', number)
	call('ZREM', q.k .. 'due', 's' .. number)
	return e
end

local function cancel(id)
	local s = call('HMGET', st(q, id), 's', 'w', 'a', 'c', 'i', 'keep')
	if not s[1] then
		return ''
	elseif s[1] ~= '' then
		return s[1]
	end
	local where = s[2]
	local i = {id = id, tracked = true, attempts = s[3], crashes = s[4], since = s[5], keep = tonumber(s[6])}
	if sub(where, 1, 1) == 's' then
		unschedule(sub(where, 2))
	else
		if first_id(q, where) == id then
			if holder(q, where) then
				q.gone = q.gone + call('HSET', q.k .. 'gone', id, 'c')
				return 'processing'
			end
			vacate(where)
		else
			q.gone = q.gone + call('HSET', q.k .. 'gone', id, 'c')
		end
	end
	finish(q, i, 'cancelled', '')
	return 'cancelled'
end

-- free frees a job's dedupe key, if that still names it.
local function free(i)
	if i.dedupe == '' then
		return
	end
	local key = q.k .. 'd:' .. #i.group .. ':' .. i.group .. i.dedupe
	local v = call('GET', key)
	if v and unpack_struct('>Hc0', v, 7) == i.id then
		call('DEL', key)
	end
end

local function bury_no_more(id)
	local d = call('HGET', q.k .. 'deadrec', id)
	if not d then
		return nil
	end
	call('ZREM', q.k .. 'dead', id)
	call('HDEL', q.k .. 'deadrec', id)
	local _, i = letter(d)
	return i
end

local function replay(id)
	local i = bury_no_more(id)
	if not i then
		return 0
	end
	i.attempts, i.crashes, i.since = 0, 0, q.now
	rewrite(q, i)
	if i.tracked then
		track(q, i, i.lane)
	end
	append(q, i.lane, i.h, i.r)
	return 1
end

local function drop(id)
	local i = bury_no_more(id)
	if not i then
		return 0
	end
	free(i)
	return 1
end

local function picks(upto, group, key, kind, i)
	return i.seq <= upto and (group == '' or group == i.group) and (key == '' or key == i.key) and (kind == '' or kind == i.kind)
end

local function erase(i)
	free(i)
	if i.tracked then
		call('DEL', st(q, i.id))
	end
end

-- purge_lane erases in a lane from a place towards its head, 128 jobs at most; it answers how many it erased and the next place.
local function purge_lane(upto, group, key, kind, lane, from)
	local list = q.k .. 'l:' .. lane
	local n = call('LLEN', list) / 2
	if from < 0 or from >= n then
		from = n - 1
	end
	local to = math.max(0, from - 127)
	local jobs = call('LRANGE', list, 2 * to, 2 * from + 1)
	local erased, removed, first = 0, 0, false
	for place = from, to, -1 do
		local at = 2 * (place - to) + 1
		local i = info(jobs[at], jobs[at + 1])
		if picks(upto, group, key, kind, i) then
			local mark = q.gone > 0 and call('HGET', q.k .. 'gone', i.id) or nil
			if mark ~= 'p' then
				if not mark then
					erased = erased + 1
				end
				erase(i)
				if place == 0 then
					if holder(q, lane) then
						q.gone = q.gone + call('HSET', q.k .. 'gone', i.id, 'p')
					else
						first = true
					end
				else
					if mark then
						call('HDEL', q.k .. 'gone', i.id)
						q.gone = q.gone - 1
					end
					call('LSET', list, 2 * place, '')
					call('LSET', list, 2 * place + 1, '')
					removed = removed + 1
				end
			end
		end
	end
	if removed > 0 then
		call('LREM', list, 0, '')
		q.jobs = q.jobs - removed
	end
	if first then
		vacate(lane)
	end
	return {erased, to - 1}
end

local answer = 0
if what == 'cancel' then
	answer = cancel(ARGV[4])
elseif what == 'replay' or what == 'drop' then
	local f = what == 'replay' and replay or drop
	for n = 4, #ARGV do
		answer = answer + f(ARGV[n])
	end
elseif what == 'pause' then
	q.paused = 1
elseif what == 'resume' then
	q.paused = 0
elseif what == 'park' then
	park(q, ARGV[4], tonumber(ARGV[5]))
elseif what == 'limit' then
	local g, cap, weight = ARGV[4], ARGV[5], ARGV[6]
	if cap == '0' and weight == '0' then
		q.limits = q.limits - call('HDEL', q.k .. 'lim', g)
		call('HDEL', q.k .. 'used', 'l' .. g, 'b' .. g)
	else
		q.limits = q.limits + call('HSET', q.k .. 'lim', g, cap .. ' ' .. weight)
	end
	sit(q, g)
elseif what == 'purge' then
	local upto, group, key, kind, where = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7], ARGV[8]
	if where == 'lane' then
		answer = purge_lane(upto, group, key, kind, ARGV[9], tonumber(ARGV[10]))
	else
		for n = 9, #ARGV do
			local name = ARGV[n]
			if where == 'sched' then
				local e = call('HGET', q.k .. 'sched', name)
				local i = e and cleave(e)
				if i and picks(upto, group, key, kind, i) then
					unschedule(name)
					erase(i)
					answer = answer + 1
				end
			elseif where == 'dead' then
				local d = call('HGET', q.k .. 'deadrec', name)
				local _, i
				if d then
					_, i = letter(d)
				end
				if i and picks(upto, group, key, kind, i) then
					bury_no_more(name)
					erase(i)
					answer = answer + 1
				end
			elseif where == 'st' then
				local s = call('HMGET', st(q, name), 's', 'n', 'g', 'y', 'k')
				if s[1] and s[1] ~= '' and picks(upto, group, key, kind, {seq = tonumber(s[2]), group = s[3], key = s[4], kind = s[5]}) then
					call('DEL', st(q, name))
				end
			elseif where == 'd' then
				local k = q.k .. 'd:' .. name
				local v = call('GET', k)
				if v then
					local size, rest = string.match(name, '^(%d+):(.*)$')
					local number, _, theirs, pos = unpack_struct('>I6Hc0Hc0', v)
					if picks(upto, group, key, kind, {seq = number, group = sub(rest, 1, size), key = sub(v, pos), kind = theirs}) then
						call('DEL', k)
					end
				end
			end
		end
	end
end
remember(q, {ARGV[2], cmsgpack.pack(answer)})
close_all(q)
return answer
