"""The flat sheet goes in; what it says in print comes out: lead names, speed, gain, text."""
