"""One job, from interactions to a published model: prepare, train, distill, export, and publish what passes a gate.

`docs/job.md` says what a spec has and what a job does; DESIGN.md, "jobs/", why.
"""
