package sqlqueue

// The statements of the SQLite dialect. All that is particular to a database stands in this file, in sqlite.go and in
// migrations: another dialect is another such table.

type statement int

const (
	stepBegin statement = iota
	stepEnd

	queueByName
	queueMake
	queueSave

	groupLoad
	groupSave
	groupTurn
	groupDelete
	ringLive
	ringBulk
	parksDue

	jobInsert
	recordInsert
	jobByN
	jobSave
	jobLease
	jobReady
	jobEnter
	jobMark
	jobExtend
	jobDone
	jobDelete
	recordDelete
	recordRead
	laneExists
	laneNext
	readyFirst
	dueWaiting
	dueScheduled
	endedLeases
	leasedAll
	nextDue
	firstLease
	jobByID
	deadByID
	purgePage

	dedupeTake
	dedupeFirst
	dedupeFree
	dedupeForget
	dedupePurge

	statusBegin
	statusRun
	statusProgress
	statusFail
	statusEnd
	statusResult
	statusByID
	statusDelete
	statusForget
	statusPurge

	intakeInsert
	intakePage
	intakeDelete

	statements
)

const jobColumns = "n, queue, id, kind, grp, class, key, lane, ord, state, place, at, armed, token, lease, claim, " +
	"relaxed, tracked, spared, cancelled, purged, done, attempts, max_attempts, crashes, max_crashes, since, late, dedupe, history, error"

const inLane = "queue = ? AND grp = ? AND class = ? AND lane = ? AND lane <> ''"

// picked is the end of a statement that picks by group, key and kind, each given twice: ” picks any.
const picked = " AND (? = '' OR grp = ?) AND (? = '' OR key = ?) AND (? = '' OR kind = ?)"

var texts = [statements]string{
	// A write comes first, so that the transaction has the lock before it has read anything.
	stepBegin: "UPDATE breakwater_space SET seq = seq RETURNING seq, step, ahead, last",
	stepEnd:   "UPDATE breakwater_space SET seq = ?, step = ?, ahead = ?, last = ?",

	queueByName: "SELECT id, paused, turns, last_run, away_from, away_to FROM breakwater_queues WHERE name = ?",
	queueMake:   "INSERT INTO breakwater_queues (name) VALUES (?) ON CONFLICT (name) DO NOTHING",
	queueSave:   "UPDATE breakwater_queues SET paused = ?, turns = ?, last_run = ?, away_from = ?, away_to = ? WHERE id = ?",

	groupLoad: "SELECT jobs, held, ready_live, ready_bulk, seat_live, seat_bulk, used_live, used_bulk, parked, armed, cap, weight FROM breakwater_groups WHERE queue = ? AND name = ?",
	groupSave: "INSERT INTO breakwater_groups (queue, name, jobs, held, ready_live, ready_bulk, seat_live, seat_bulk, used_live, used_bulk, parked, armed, cap, weight) " +
		"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (queue, name) DO UPDATE SET jobs = excluded.jobs, held = excluded.held, " +
		"ready_live = excluded.ready_live, ready_bulk = excluded.ready_bulk, seat_live = excluded.seat_live, seat_bulk = excluded.seat_bulk, " +
		"used_live = excluded.used_live, used_bulk = excluded.used_bulk, parked = excluded.parked, armed = excluded.armed, cap = excluded.cap, weight = excluded.weight",
	// What a turn of a class changes: other columns have indexes of their own.
	groupTurn:   "UPDATE breakwater_groups SET jobs = ?, held = ?, ready_live = ?, seat_live = ?, used_live = ? WHERE queue = ? AND name = ?",
	groupDelete: "DELETE FROM breakwater_groups WHERE queue = ? AND name = ?",
	ringLive:    "SELECT name FROM breakwater_groups WHERE queue = ? AND seat_live > 0 ORDER BY seat_live LIMIT ?",
	ringBulk:    "SELECT name FROM breakwater_groups WHERE queue = ? AND seat_bulk > 0 ORDER BY seat_bulk LIMIT ?",
	parksDue:    "SELECT name, parked, armed FROM breakwater_groups WHERE queue = ? AND parked > 0 AND parked <= ? ORDER BY parked, armed LIMIT ?",

	jobInsert:    "INSERT INTO breakwater_jobs (" + jobColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	recordInsert: "INSERT INTO breakwater_records (n, record) VALUES (?, ?)",
	jobByN:       "SELECT " + jobColumns + " FROM breakwater_jobs WHERE n = ?",
	jobSave: "UPDATE breakwater_jobs SET lane = ?, ord = ?, state = ?, place = ?, at = ?, armed = ?, token = ?, spared = ?, cancelled = ?, purged = ?, " +
		"attempts = ?, crashes = ?, since = ?, late = ?, history = ?, error = ? WHERE n = ?",
	jobLease:     "UPDATE breakwater_jobs SET state = 2, at = ?, armed = ?, token = ?, lease = ?, claim = ?, spared = 0 WHERE n = ?",
	jobReady:     "UPDATE breakwater_jobs SET state = 1, place = ? WHERE n = ?",
	jobEnter:     "UPDATE breakwater_jobs SET lane = ?, state = ?, place = ?, ord = ? WHERE n = ?",
	jobMark:      "UPDATE breakwater_jobs SET cancelled = ?, purged = ? WHERE n = ?",
	jobExtend:    "UPDATE breakwater_jobs SET at = ?, lease = ?, spared = ? WHERE n = ?",
	jobDone:      "UPDATE breakwater_jobs SET done = 1 WHERE n = ?",
	jobDelete:    "DELETE FROM breakwater_jobs WHERE n = ?",
	recordDelete: "DELETE FROM breakwater_records WHERE n = ?",
	recordRead:   "SELECT record FROM breakwater_records WHERE n = ?",
	laneExists:   "SELECT 1 FROM breakwater_jobs WHERE " + inLane + " LIMIT 1",
	laneNext:     "SELECT n, cancelled FROM breakwater_jobs WHERE " + inLane + " AND ord > ? ORDER BY ord LIMIT 1",
	readyFirst: "SELECT j.n, id, tracked, attempts, crashes, since, late, history, record FROM breakwater_jobs j JOIN breakwater_records r ON r.n = j.n " +
		"WHERE queue = ? AND grp = ? AND class = ? AND state = 1 ORDER BY place LIMIT 1",
	dueWaiting:   "SELECT " + jobColumns + " FROM breakwater_jobs WHERE queue = ? AND state = 3 AND state > 1 AND at <= ? ORDER BY at, armed LIMIT ?",
	dueScheduled: "SELECT " + jobColumns + " FROM breakwater_jobs WHERE queue = ? AND state = 4 AND state > 1 AND at <= ? ORDER BY at, armed LIMIT ?",
	endedLeases:  "SELECT " + jobColumns + " FROM breakwater_jobs WHERE queue = ? AND state = 2 AND state > 1 AND at <= ? ORDER BY at, armed LIMIT ?",
	leasedAll:    "SELECT " + jobColumns + " FROM breakwater_jobs WHERE queue = ? AND state = 2 AND state > 1 ORDER BY claim",
	nextDue: "SELECT coalesce((SELECT at FROM breakwater_jobs WHERE queue = ?1 AND state = 3 AND state > 1 ORDER BY at LIMIT 1), 0), " +
		"coalesce((SELECT at FROM breakwater_jobs WHERE queue = ?1 AND state = 4 AND state > 1 ORDER BY at LIMIT 1), 0), " +
		"coalesce((SELECT parked FROM breakwater_groups WHERE queue = ?1 AND parked > 0 ORDER BY parked LIMIT 1), 0)",
	firstLease: "SELECT at, lease FROM breakwater_jobs WHERE queue = ? AND state = 2 AND state > 1 ORDER BY at, armed LIMIT 1",
	jobByID:    "SELECT " + jobColumns + " FROM breakwater_jobs WHERE queue = ? AND id = ? ORDER BY n LIMIT 1",
	deadByID:   "SELECT " + jobColumns + " FROM breakwater_jobs WHERE queue = ? AND id = ? AND state = 5 LIMIT 1",
	purgePage:  "SELECT " + jobColumns + " FROM breakwater_jobs WHERE n > ? AND n <= ? ORDER BY n LIMIT ?",

	dedupeTake: "INSERT INTO breakwater_dedupe (queue, grp, dedupe, ends, n, id, key, kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?) " +
		"ON CONFLICT (queue, grp, dedupe) DO UPDATE SET ends = excluded.ends, n = excluded.n, id = excluded.id, key = excluded.key, kind = excluded.kind WHERE ends <= ?",
	dedupeFirst:  "SELECT id FROM breakwater_dedupe WHERE queue = ? AND grp = ? AND dedupe = ?",
	dedupeFree:   "DELETE FROM breakwater_dedupe WHERE queue = ? AND grp = ? AND dedupe = ? AND id = ?",
	dedupeForget: "DELETE FROM breakwater_dedupe WHERE (queue, grp, dedupe) IN (SELECT queue, grp, dedupe FROM breakwater_dedupe WHERE ends <= ? ORDER BY ends LIMIT ?)",
	dedupePurge:  "DELETE FROM breakwater_dedupe WHERE queue = ? AND n <= ?" + picked,

	statusBegin: "INSERT INTO breakwater_status (queue, id, n, grp, key, kind, keep, percent, note, result, error, state, attempts, crashes, since, ended, ends) " +
		"VALUES (?, ?, ?, ?, ?, ?, ?, 0, '', NULL, '', '', 0, 0, ?, 0, 0) ON CONFLICT (queue, id) DO UPDATE SET n = excluded.n, keep = excluded.keep, percent = 0, note = '', " +
		"result = NULL, error = '', state = '', attempts = 0, crashes = 0, since = excluded.since, ended = 0, ends = 0",
	statusRun:      "UPDATE breakwater_status SET percent = 0, note = '' WHERE queue = ? AND id = ? AND state = ''",
	statusProgress: "UPDATE breakwater_status SET percent = ?, note = ? WHERE queue = ? AND id = ? AND state = '' AND percent <= ?",
	statusFail:     "UPDATE breakwater_status SET error = ? WHERE queue = ? AND id = ? AND state = ''",
	statusEnd: "UPDATE breakwater_status SET state = ?1, attempts = ?2, crashes = ?3, since = ?4, ended = ?5, ends = ?5 + keep, error = CASE WHEN ?6 = '' THEN error ELSE ?6 END, " +
		"percent = CASE WHEN ?1 = 'succeeded' THEN 100 ELSE percent END, result = coalesce(?7, result) WHERE queue = ?8 AND id = ?9 AND state = ''",
	statusResult: "UPDATE breakwater_status SET result = ? WHERE queue = ? AND id = ? AND state = ''",
	statusByID:   "SELECT kind, grp, percent, note, result, error, state, attempts, crashes, since, ended, ends FROM breakwater_status WHERE queue = ? AND id = ?",
	statusDelete: "DELETE FROM breakwater_status WHERE queue = ? AND id = ?",
	statusForget: "DELETE FROM breakwater_status WHERE (queue, id) IN (SELECT queue, id FROM breakwater_status WHERE ends > 0 AND ends <= ? ORDER BY ends LIMIT ?)",
	statusPurge:  "DELETE FROM breakwater_status WHERE queue = ? AND n <= ? AND state <> ''" + picked,

	intakeInsert: "INSERT INTO breakwater_intake (queue, due, dead, id, kind, grp, class, key, relaxed, tracked, max_attempts, max_crashes, deadline, dedupe, record) " +
		"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	intakePage:   "SELECT seq, due, dead, id, kind, grp, class, key, relaxed, tracked, max_attempts, max_crashes, deadline, dedupe, record FROM breakwater_intake WHERE queue = ? ORDER BY seq LIMIT ?",
	intakeDelete: "DELETE FROM breakwater_intake WHERE queue = ? AND seq <= ?",
}
