"""Traces: the one that a request belongs to, and the spans that each process adds to it.

trace_context.py   W3C Trace Context: reads and writes `traceparent` and `tracestate`; needs no package
tracing.py         what processes write spans with, and its form that writes none
opening.py         opens it as the settings say
open_telemetry.py  spans of OpenTelemetry; imports its packages, which are an extra
"""
