"""The service under killed, stopped and cut-off processes: nothing that was accepted is lost or done twice."""
