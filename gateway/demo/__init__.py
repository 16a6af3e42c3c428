"""`make demo`: the whole way on simulated pages, with real peers on loopback, in about a minute.

One page is sent by C-STORE as a Secondary Capture, another is put as a PDF into the watched folder.  The gateway runs
as a process of its own on its defaults, except for a temporary data folder and free ports.  A receiving PACS and an HL7
listener run here.  What they received, not what the gateway says it sent, is printed and left in the output folder.
"""
