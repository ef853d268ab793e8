"""The server's side of the secure sum; `client.securesum` answers its messages.

aggregation       one round: repeated tries until a sum of valid reports is opened
attempt           one try: masked reports in, one sum out
membership        which sites have joined, and by which node
key_collection    keys and shares for the next try
blame             which sites lied, as far as is known, and which a try leaves out
round_checkpoint  the state of a round on disk
wire              messages as flat fields: the direction that sites do not need
"""
