"""The checkpoints this project trained, and the code that trained them. Nothing in the service imports this."""
