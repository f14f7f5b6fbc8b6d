-- One record, KEYS[1], a string: format, state, token, lengths of fingerprint and version, in progress the lease's end in ms, fingerprint, version, result. ARGV[1] says which
-- step; see store.go. What is done without a result has 12 bytes, which Redis keeps beside the object.
-- A record is there for as long as anything is known. All times are the server's.
local FORMAT, PROGRESS, DONE, RELEASED, TAKEN = 1, 1, 2, 3, 4 -- states are part of the format; TAKEN is in progress, from a lease that ended without a word
local HEAD, HEAD_SIZE = '>BBc8BB', 12
local ENDS = '>I6'
local call, sub, byte, pack = redis.call, string.sub, string.byte, struct.pack
local key, step = KEYS[1], ARGV[1]

local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local rec
local v = call('GET', key)
if v then
	if byte(v) ~= FORMAT or #v < HEAD_SIZE then
		return redis.error_reply('NEWERFORMAT this record')
	end
	local _, state, token, fl, vl = struct.unpack(HEAD, v)
	local running = state == PROGRESS or state == TAKEN
	if state < PROGRESS or state > TAKEN or #v < HEAD_SIZE + (running and 6 or 0) + fl + vl then
		return redis.error_reply('NEWERFORMAT this record: it is damaged') -- no fresh run
	end
	local at, ends, taken = HEAD_SIZE + 1, 0, state == TAKEN
	if running then
		state = PROGRESS
		ends, at = struct.unpack(ENDS, v, at)
	end
	rec = {state = state, taken = taken, token = token, ends = ends, fingerprint = sub(v, at, at + fl - 1), version = sub(v, at + fl, at + fl + vl - 1), rest = at + fl + vl}
end

local function write(state, token, ends, fingerprint, version, result, px)
	local head = pack(HEAD, FORMAT, state, token, #fingerprint, #version)
	if state == PROGRESS or state == TAKEN then
		head = head .. pack(ENDS, ends)
	end
	local value = head .. fingerprint .. version .. result
	if v then -- what is begun can be ended in a full Redis too
		local ok = redis.pcall('SET', key, value, 'PX', px)
		if not ok.err then
			return
		end
		call('PEXPIRE', key, px) -- a write that it allows; what follows it is allowed as well
	end
	call('SET', key, value, 'PX', px)
end

-- compare orders bytes: Lua's own < asks the server's locale.
local function compare(a, b)
	if a == b then
		return 0
	end
	for i = 1, math.max(#a, #b) do
		local x, y = byte(a, i) or -1, byte(b, i) or -1
		if x ~= y then
			return x < y and -1 or 1
		end
	end
end

-- held says whether the record is this token's, and its lease not over.
local function held(token)
	return rec and rec.state == PROGRESS and rec.token == token and now < rec.ends
end

if step == 'claim' then -- token, fingerprint, version, lease, retention, 1 to ask first; answers a state, of a lease the rest, of what is done the result and its rest
	local token, fingerprint, version = ARGV[2], ARGV[3], ARGV[4]
	local lease, retention = tonumber(ARGV[5]), tonumber(ARGV[6])
	local taken = false
	if rec then
		local running = rec.state == PROGRESS and now < rec.ends
		local ended = rec.state == PROGRESS and not running
		local order = compare(version, rec.version)
		if running and rec.token == token then -- sent again
			taken = rec.taken
		elseif order < 0 then
			return {'superseded'}
		elseif order == 0 and rec.state ~= RELEASED and fingerprint ~= '' and rec.fingerprint ~= '' and fingerprint ~= rec.fingerprint then
			return {'mismatch'}
		elseif running then
			return {'progress', rec.ends - now}
		elseif ended and ARGV[7] == '1' then
			return {'unknown'}
		elseif rec.state == DONE and order == 0 then
			return {'done', call('PTTL', key), rec.fingerprint, sub(v, rec.rest)}
		end
		taken = taken or ended
	end
	v = nil -- a full Redis takes no new claims
	write(taken and TAKEN or PROGRESS, token, now + lease, fingerprint, version, '', lease + retention)
	return {'claimed', taken and 1 or 0}
elseif step == 'extend' then -- token, lease; answers 1 if it was held
	if not held(ARGV[2]) then
		return 0
	end
	local lease = tonumber(ARGV[3])
	write(rec.taken and TAKEN or PROGRESS, rec.token, now + lease, rec.fingerprint, rec.version, '', call('PTTL', key) - (rec.ends - now) + lease)
	return 1
elseif step == 'complete' then -- token, retention, result; answers 1 if it was held
	if not held(ARGV[2]) then
		return rec and rec.state == DONE and rec.token == ARGV[2] and 1 or 0
	end
	write(DONE, rec.token, 0, rec.fingerprint, rec.version, ARGV[4], tonumber(ARGV[3]))
	return 1
elseif step == 'release' then -- token, retention
	if held(ARGV[2]) then
		if rec.version == '' then
			call('DEL', key)
		else
			write(RELEASED, rec.token, 0, rec.fingerprint, rec.version, '', tonumber(ARGV[3]))
		end
	end
	return 1
elseif step == 'inspect' then
	if not rec then
		return {}
	end
	return {rec.state, rec.token, rec.ends - now, call('PTTL', key), rec.fingerprint, rec.version, sub(v, rec.rest), rec.taken and 1 or 0}
elseif step == 'resolve' then -- token, state as it was seen, 1 to forget, retention, result, token from then on; answers what it is
	local running = rec and rec.state == PROGRESS and now < rec.ends
	local forget, result, resolved = ARGV[4] == '1', ARGV[6], ARGV[7]
	if not rec and forget or rec and not forget and rec.state == DONE and rec.token == resolved and sub(v, rec.rest) == result then
		return 'settled' -- it is as asked
	end
	if not rec or rec.token ~= ARGV[2] or tostring(running and PROGRESS or rec.state == PROGRESS and 0 or rec.state) ~= ARGV[3] then
		return 'changed'
	end
	if running then
		return 'progress'
	end
	if forget then
		call('DEL', key)
	else
		write(DONE, resolved, 0, rec.fingerprint, rec.version, result, tonumber(ARGV[5]))
	end
	return 'settled'
end
