"""Applications that others wrote, fetched as their users fetch them and run as a tenant."""
