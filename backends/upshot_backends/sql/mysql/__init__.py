"""Results and messages in MySQL and MariaDB."""
