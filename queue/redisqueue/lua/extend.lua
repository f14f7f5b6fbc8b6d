-- ARGV: queue, lease in µs, then for each token: it, percent or nothing, note. Answers the places of the lost and of the cancelled.
call('DEL', KEYS[1])
local q = open(ARGV[1])
if not q then
	return NEWER
end
ran(q)
local lease = tonumber(ARGV[2])
local lost, cancelled, ends = {}, {}, {}
local tokens = {}
for a = 3, #ARGV, 3 do
	tokens[#tokens + 1] = ARGV[a]
end
local lanes, owns = read_holders(q, tokens)
for a = 3, #ARGV, 3 do
	local n = (a - 3) / 3
	local lane = lanes[n + 1]
	local t = holding(q, lane, owns[n + 1])
	if not t then
		lost[#lost + 1] = n
	else
		ends[#ends + 1] = int(at(q, lease))
		ends[#ends + 1] = lane
		if t.lease ~= lease or t.spared ~= 0 then
			t.lease, t.spared = lease, 0
			keep(q, lane, t)
		end
		if ARGV[a + 1] ~= '' then
			progress(q, t, ARGV[a + 1], ARGV[a + 2])
		end
		if marked(q, lane) then
			cancelled[#cancelled + 1] = n
		end
	end
end
if #ends > 0 then
	many('ZADD', q.k .. 'lease', ends)
end
close_all()
return {lost, cancelled}
