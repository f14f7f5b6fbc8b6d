CREATE TABLE IF NOT EXISTS breakwater_once (
	scope TEXT NOT NULL,
	op TEXT NOT NULL,
	id TEXT NOT NULL,
	format INTEGER NOT NULL, -- of the row
	state INTEGER NOT NULL, -- 1 in progress, 2 done, 3 released, 4 in progress after a lease that ended without a word
	token BLOB NOT NULL, -- of the claim that is or was the last
	ends INTEGER NOT NULL, -- the lease's end, µs since 1970
	kept INTEGER NOT NULL, -- until when anything is known, µs since 1970
	fingerprint BLOB NOT NULL,
	version BLOB NOT NULL,
	result BLOB,
	UNIQUE (scope, op, id)
);
CREATE INDEX IF NOT EXISTS breakwater_once_kept ON breakwater_once (kept);
