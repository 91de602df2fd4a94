"""One Alembic environment per database, over one runner."""
