-- ARGV: queue. Changes nothing.
local q = open(ARGV[1])
if not q then
	return NEWER
end
local sched, due = call('HLEN', q.k .. 'sched'), call('ZCARD', q.k .. 'due')
return {q.jobs - q.gone, call('ZCARD', q.k .. 'lease'), due - sched - q.parks, sched, call('ZCARD', q.k .. 'dead'), q.parks, q.paused, int(q.now), q.limits, int(q.seq)}
