"""The server's side of the secure sum; `client.securesum` answers its messages.

aggregation       one round: repeated tries until a sum of valid reports is opened
attempt           one try: masked reports in, one sum out
membership        which sites have joined, and by which node
key_collection    keys and shares for the next try
blame             which sites lied, as far as is known; exclusions, the sites a try leaves out
round_checkpoint  the state of a round on disk; masked_reports, the reports of its try
"""
