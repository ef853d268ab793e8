"""What a run costs: bytes and memory by formula, time as measured on this machine.

workload  counts of a round, its bytes on the wire (exact), memory of its arrays
timing    seconds of rounds that this machine has run
scaling   the same formulas for federations and models larger than any that was run
tables    all of it as text
"""
