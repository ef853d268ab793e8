"""The server's side of the secure sum; `client.securesum` answers its messages.

aggregation       one round: repeated tries until a sum of valid reports is opened
attempt           one try: masked reports in, one sum out
membership        the sites that have joined, and their nodes
key_collection    keys and shares for the next try
blame             the sites known to have lied, and those that a try leaves out
round_checkpoint  the state of a round on disk
wire              messages as flat fields: the half that sites do not need
"""
