"""Operations on an instance's endpoints."""
