-- ARGV: the queue; then for each batch its ID, how many jobs, and the jobs.
-- A batch that was seen in the last two minutes gets the same answer: its duplicates, by place.
call('LPUSHX', KEYS[1], '') -- changes nothing, and is refused when there is no memory: all or none
local q = open(ARGV[1])
if not q then
	return NEWER
end
ran(q)

local ids, places = {}, {}
local a = 2
while a <= #ARGV do
	ids[#ids + 1] = ARGV[a]
	places[#places + 1] = a + 2
	a = a + 2 + ARGV[a + 1] * ACCEPT
end
places[#places + 1] = a + 2

local seen = recall(q, ids)
local answers, kept, done = {}, {}, {}
for n = 1, #ids do
	seen[n] = seen[n] or done[ids[n]]
	if not seen[n] then
		local dups = {}
		for j = places[n], places[n + 1] - 3, ACCEPT do
			local first = accept(q, j)
			if first then
				dups[#dups + 1] = (j - places[n]) / ACCEPT
				dups[#dups + 1] = first
			end
		end
		seen[n] = table.concat(dups, ' ')
		done[ids[n]] = seen[n]
		kept[#kept + 1] = ids[n]
		kept[#kept + 1] = seen[n]
	end
	answers[n] = seen[n]
end
if #kept > 0 then
	remember(q, kept)
end
close_all()
return answers
