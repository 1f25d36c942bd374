"""The service while processes die and connections break: no accepted job is lost or run twice."""
