"""The digitizing processes: jobs are claimed, digitized and completed."""
