"""The server's side of the secure sum: what `client.securesum` answers, over many sites.

aggregation       one round: tries of it, until one sum of good reports is opened
attempt           one try: masked reports in, one sum out
membership        which sites have joined, over which node
key_collection    keys and shares for the next try
blame             who lied, as far as is known; exclusions, whom a try goes without
round_checkpoint  where a round stands on disk; masked_reports, the reports of its try
"""
