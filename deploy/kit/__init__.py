"""The kits of a real deployment: a server's folder, a site's folder, and the papers between them.

papers       what operators send each other, and fingerprints to be read over the telephone
announcement the third of them: one run to approve
keys         certificates and node keys
bundle       the code that sites are asked to run, as a file to look at
federation   the server's folder: init, enrol, announce
control      Flower's own command line, for nodes and runs
link         the server's processes: SuperLink, SuperExec, reverse proxy, and the run
site         a site's folder: init, approve
fleet        what a site asks the server before it runs
node         a site's processes: SuperNode and gate
gate         which code a site runs; worker, the process that runs it
preflight    what may be wrong, before anything is asked
status       where things stand, on both sides
locks        one process at a time in a folder
arguments    the command lines; commands, what they do
"""
