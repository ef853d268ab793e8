"""The kits of a real deployment: a server's folder, a site's folder, and the papers between them.

papers      what operators send each other: invitation, enrolment, announcement; fingerprints
keys        certificates and node keys
bundle      the code that sites are asked to run, as a file to look at
federation  the server's folder: init, enrol, announce
link        the server's processes: SuperLink, SuperExec, reverse proxy, and the run
site        a site's folder: init, approve
node        a site's processes: SuperNode and gate
gate        which code a site runs; worker, the process that runs it
preflight   what may be wrong, before anything is asked
status      where things stand, on both sides
"""
