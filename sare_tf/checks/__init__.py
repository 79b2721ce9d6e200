"""What a check finds in a manifest and in its images: pure functions.

A finding is an error where training or evaluation would be wrong, a warning
where it may be, and a note where nothing is wrong that one would want to know.
Each names the images concerned and says what to do. Rows are positions in the
manifest given.
"""
