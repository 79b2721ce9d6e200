"""A folder of photographs as a database to search, kept up to date in a cache.

`prepare` makes everything that `locate` needs: records, the export of a
pretrained network, and the index. Only what has changed is made again.
"""
