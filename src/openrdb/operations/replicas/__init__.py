"""Operations on read replicas."""
