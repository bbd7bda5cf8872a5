"""Operations on backups, one module a kind."""
