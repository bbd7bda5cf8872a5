"""Operations on instances' logs, one module a kind."""
