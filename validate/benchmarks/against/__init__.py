"""`kvplan validate against COMMIT`: how many times as fast as an earlier commit."""
