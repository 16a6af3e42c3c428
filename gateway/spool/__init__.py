"""Durable bytes: what was received and what was made of it, one folder a job, on a disk or in a bucket."""
