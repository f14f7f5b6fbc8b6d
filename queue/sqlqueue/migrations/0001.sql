-- Format 1. Times are microseconds of the engine's clock since 1970, spans are microseconds; 0 is no time.
-- Everything that has an order is numbered by breakwater_space.seq.

CREATE TABLE breakwater_space (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	seq INTEGER NOT NULL,
	step INTEGER NOT NULL,  -- counts the steps: a process whose step was the last knows the queues and groups already
	ahead INTEGER NOT NULL, -- of the system's clock, so that the engine's never goes back
	last INTEGER NOT NULL   -- the time of the last step
);
INSERT INTO breakwater_space (one, seq, step, ahead, last) VALUES (1, 0, 0, 0, 0);

CREATE TABLE breakwater_queues (
	id INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	paused INTEGER NOT NULL DEFAULT 0,
	turns INTEGER NOT NULL DEFAULT 0,
	last_run INTEGER NOT NULL DEFAULT 0,
	away_from INTEGER NOT NULL DEFAULT 0, -- leases that ended between these live on once more
	away_to INTEGER NOT NULL DEFAULT 0
);

-- A group is there while it has jobs that are not dead, is parked, or has limits.
CREATE TABLE breakwater_groups (
	queue INTEGER NOT NULL,
	name TEXT NOT NULL,
	jobs INTEGER NOT NULL, -- in lanes and scheduled
	held INTEGER NOT NULL,
	ready_live INTEGER NOT NULL, -- lanes
	ready_bulk INTEGER NOT NULL,
	seat_live INTEGER NOT NULL, -- its place in the ring; 0 is outside
	seat_bulk INTEGER NOT NULL,
	used_live INTEGER NOT NULL, -- lanes claimed in this turn
	used_bulk INTEGER NOT NULL,
	parked INTEGER NOT NULL, -- until
	armed INTEGER NOT NULL,
	cap INTEGER NOT NULL,
	weight INTEGER NOT NULL,
	PRIMARY KEY (queue, name)
) WITHOUT ROWID;
CREATE INDEX breakwater_groups_live ON breakwater_groups (queue, seat_live) WHERE seat_live > 0;
CREATE INDEX breakwater_groups_bulk ON breakwater_groups (queue, seat_bulk) WHERE seat_bulk > 0;
CREATE INDEX breakwater_groups_parked ON breakwater_groups (queue, parked) WHERE parked > 0;

-- A lane is the jobs of a queue, group, class and lane, by ord. What is said of a lane (ready, leased, waiting)
-- stands with its first job.
-- state: 0 behind another, 1 ready, 2 leased, 3 waiting, 4 scheduled (outside its lane), 5 dead.
CREATE TABLE breakwater_jobs (
	n INTEGER PRIMARY KEY, -- the order in which they were accepted
	queue INTEGER NOT NULL,
	id TEXT NOT NULL,
	kind TEXT NOT NULL,
	grp TEXT NOT NULL,
	class INTEGER NOT NULL, -- 0 live, 1 bulk
	key TEXT NOT NULL,
	lane TEXT NOT NULL, -- the key while the job is in its lane, '' while it is outside; a job without a key has no need of it
	ord INTEGER NOT NULL,
	state INTEGER NOT NULL,
	place INTEGER NOT NULL, -- while ready, in its group
	at INTEGER NOT NULL,    -- the lease's end, when it is due, or when it died
	armed INTEGER NOT NULL, -- when at was set: the order among equals
	token TEXT NOT NULL,
	lease INTEGER NOT NULL,
	claim INTEGER NOT NULL, -- when it was leased, among all leases
	relaxed INTEGER NOT NULL,
	tracked INTEGER NOT NULL,
	spared INTEGER NOT NULL,    -- its lease ended once for want of anybody who could extend it
	cancelled INTEGER NOT NULL, -- leaves when it is its lane's head and nobody has it
	purged INTEGER NOT NULL,
	done INTEGER NOT NULL, -- its effect is committed; only the settlement is missing
	attempts INTEGER NOT NULL,
	max_attempts INTEGER NOT NULL,
	crashes INTEGER NOT NULL,
	max_crashes INTEGER NOT NULL,
	since INTEGER NOT NULL,
	late INTEGER NOT NULL, -- when its deadline has passed
	dedupe TEXT NOT NULL,
	history BLOB, -- a record with nothing but the history
	error TEXT NOT NULL -- why it died
);
CREATE INDEX breakwater_jobs_id ON breakwater_jobs (queue, id);
CREATE INDEX breakwater_jobs_lane ON breakwater_jobs (queue, grp, class, lane, ord) WHERE lane <> '';
CREATE INDEX breakwater_jobs_ready ON breakwater_jobs (queue, grp, class, place) WHERE state = 1;
CREATE INDEX breakwater_jobs_timed ON breakwater_jobs (queue, state, at, armed) WHERE state > 1;
CREATE INDEX breakwater_jobs_cancelled ON breakwater_jobs (queue) WHERE cancelled = 1;

-- The jobs as they were accepted, apart from what changes.
CREATE TABLE breakwater_records (
	n INTEGER PRIMARY KEY,
	record BLOB NOT NULL
);

CREATE TABLE breakwater_dedupe (
	queue INTEGER NOT NULL,
	grp TEXT NOT NULL,
	dedupe TEXT NOT NULL,
	ends INTEGER NOT NULL,
	n INTEGER NOT NULL,
	id TEXT NOT NULL,
	key TEXT NOT NULL,
	kind TEXT NOT NULL,
	PRIMARY KEY (queue, grp, dedupe)
) WITHOUT ROWID;
CREATE INDEX breakwater_dedupe_ends ON breakwater_dedupe (ends);

-- Status of tracked jobs. While a job is in the queue its state is read off the job.
CREATE TABLE breakwater_status (
	queue INTEGER NOT NULL,
	id TEXT NOT NULL,
	n INTEGER NOT NULL,
	grp TEXT NOT NULL,
	key TEXT NOT NULL,
	kind TEXT NOT NULL,
	keep INTEGER NOT NULL, -- how long after its end
	percent INTEGER NOT NULL,
	note TEXT NOT NULL,
	result BLOB,
	error TEXT NOT NULL,
	state TEXT NOT NULL, -- '' before the end
	attempts INTEGER NOT NULL,
	crashes INTEGER NOT NULL,
	since INTEGER NOT NULL,
	ended INTEGER NOT NULL,
	ends INTEGER NOT NULL, -- when it is forgotten
	PRIMARY KEY (queue, id)
) WITHOUT ROWID;
CREATE INDEX breakwater_status_ends ON breakwater_status (ends) WHERE ends > 0;

-- What was enqueued in a user's transaction and is not in its lane yet. Its dedupe key and status are set already.
CREATE TABLE breakwater_intake (
	seq INTEGER PRIMARY KEY AUTOINCREMENT,
	queue INTEGER NOT NULL,
	due INTEGER NOT NULL,
	dead TEXT NOT NULL, -- the error of one that goes to the dead letters; '' for others
	id TEXT NOT NULL,
	kind TEXT NOT NULL,
	grp TEXT NOT NULL,
	class INTEGER NOT NULL,
	key TEXT NOT NULL,
	relaxed INTEGER NOT NULL,
	tracked INTEGER NOT NULL,
	max_attempts INTEGER NOT NULL,
	max_crashes INTEGER NOT NULL,
	deadline INTEGER NOT NULL,
	dedupe TEXT NOT NULL,
	record BLOB NOT NULL
);
CREATE INDEX breakwater_intake_queue ON breakwater_intake (queue, seq);
