"""The object store: client, embedded server, content hashes, catalogue, local cache."""
