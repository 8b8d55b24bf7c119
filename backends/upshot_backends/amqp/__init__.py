"""Results and messages on a RabbitMQ server."""
