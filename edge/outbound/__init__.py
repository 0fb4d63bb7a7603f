"""What the appliance tells others: the service manager, and later metrics, MQTT and webhooks."""
