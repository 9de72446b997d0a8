"""What a server tells of its traffic, free of any metrics library.

``observation``: what one row of an answer has to say; ``reference``: what validation looked like; ``drift``: how far
traffic is from that.
"""
