"""Operations on snapshots, and instances made of copies."""
