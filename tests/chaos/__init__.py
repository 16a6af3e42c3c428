"""The gateway under faults: `python -m tests.chaos`, or `make chaos`; docs/reliability.md says what it proves.

lab        a gateway as real processes, its peers, its load, and a healthy peer that is measured all the while
faults     what is done to it: kill -9, disks, locked database, stopped workers, dead peers, clocks
wire       mutated input for the living gateway: PDUs, data sets, MLLP, HTTP, files
parsers    the same for its parsers alone, in processes of their own and at a high rate
account    what was acknowledged against what arrived: lost, twice, wrong patient
"""
