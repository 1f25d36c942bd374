"""APIs of other services, each translated at the edge; nothing behind them knows which API a job came from.

openai_requests.py    OpenAI Images requests, translated into ours
openai_responses.py   answers, events and errors as OpenAI clients read them
"""
