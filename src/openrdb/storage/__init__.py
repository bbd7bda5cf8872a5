"""The object store: where backups are, in a directory or in S3, behind five verbs."""
