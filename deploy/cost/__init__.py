"""What a run costs, reckoned before anything is spent: seconds, bytes, memory.

Every term is a count times a unit cost. Counts follow from the plan and from what the code does
(how often a mask is expanded, how many shares are made); unit costs were measured.

    load     what one round asks of a site and of the server
    units    unit costs, and the machine they were measured on (tests/benchmarks/unit_costs)
    traffic  bytes on the wire     seconds  terms of a site, of the server     memory  peaks
    run      a whole run: simulated on one machine, or deployed
    road     the same for federations and models that nobody has yet
"""
