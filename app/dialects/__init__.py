"""APIs of other services, each translated at the edge; nothing behind them knows which API a job came from.

openai/           OpenAI's images and batches
huggingface/      Hugging Face's inference API
replicate/        Replicate's predictions
a1111/            AUTOMATIC1111's web UI
native_fields.py  our own fields inside another API's request
field_names.py    errors about our fields, under the names that were sent
"""
