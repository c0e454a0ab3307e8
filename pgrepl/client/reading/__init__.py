"""Reading a decoded stream: an object for each way, and what all ways share.

`ways` says which there are, and which can go on where another was left. `decoded` has what came and
was not read yet. Each way is a class that states what it keeps: `messages`, `transactions`,
`batches` (which stands on transactions) and `events`. None of them waits: the flavours do, and use
no more of a way than its public names, so that one can be replaced without the others.
"""
