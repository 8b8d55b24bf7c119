"""The tests: each checks clauses of the contract on whatever backend was chosen."""
