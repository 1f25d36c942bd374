"""What operators and their tools ask about the service. Knows no HTTP.

readiness.py    whether a job sent now would be run
prometheus.py   Prometheus metrics
"""
