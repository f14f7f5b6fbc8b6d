// Package jobhttp lets HTTP clients start jobs and follow them: 202 at once, then poll, stream or be called back.
//
// The problem: an import takes minutes, and a request that waits for it dies at the first proxy that
// loses patience. The client sends it again and the import runs twice. The cure is to store the job, answer
// 202 with its address, and let the client ask there.
//
//	POST                     202 {"jobId":"…","status":"pending"}, Location, Retry-After
//	GET    /jobs/{id}        the status: progress, note, result or error; 404, 410
//	GET    /jobs/{id}/events the same as Server-Sent Events, until the job has ended
//	DELETE /jobs/{id}        cancels: 200, or 202 while a worker still has the job
//
// The guarantee: 202 is sent only after the job is in the queue, and, if the submission names a callback
// URL, after what will call it is there too. A callback is sent at least once, signed as standardwebhooks.com
// describes, with the same webhook-id on every try; it never goes to a private address unless that is allowed.
// Nobody sees a job that the allow func does not let them see; they get the answer of one that does not exist.
//
// What it does not do: authenticate (the user's middleware does, and the accept and allow funcs look at what it
// found), limit rates, send CORS headers, or bound how slowly a body may arrive (http.Server's ReadTimeout does).
// Two equal requests are two jobs unless the accept func sets a DedupeKey, for instance from an
// Idempotency-Key header; then both get the first job's ID.
//
//	accept := jobhttp.JSON(func(r *http.Request, in Import) (jobhttp.Submission, error) { … })
//	api, err := jobhttp.New(jobs, accept, ownShop, jobhttp.Config{Path: "/jobs"})
//	http.Handle("/jobs", api)
//	http.Handle("/jobs/", api)
//	srv.RegisterOnShutdown(api.EndStreams)
package jobhttp
