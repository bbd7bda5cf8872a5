"""Operations of recovery to a point in time."""
