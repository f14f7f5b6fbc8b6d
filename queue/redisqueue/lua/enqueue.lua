-- ARGV: the queue; then for each batch its ID, how many jobs, and the jobs.
-- A batch that was seen before gets the same answer: its duplicates, by place.
call('LPUSHX', KEYS[1], '') -- changes nothing, and is refused when there is no memory: all or none
local q = open(ARGV[1])
ran(q)
local answers = {}
local a = 2
while a <= #ARGV do
	local key = q.k .. 'b:' .. ARGV[a]
	local n = tonumber(ARGV[a + 1])
	a = a + 2
	local seen = call('GET', key)
	if seen then
		answers[#answers + 1] = seen
		a = a + n * ACCEPT
	else
		local dups = {}
		for j = 1, n do
			local id, dup = accept(q, a)
			if dup then
				dups[#dups + 1] = j - 1
				dups[#dups + 1] = id
			end
			a = a + ACCEPT
		end
		local answer = table.concat(dups, ' ')
		call('SET', key, answer, 'PX', 120000)
		answers[#answers + 1] = answer
	end
end
close_all()
return answers
