"""What every service needs and no service owns: settings, database, errors, auth, wire formats."""
