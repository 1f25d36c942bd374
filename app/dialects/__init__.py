"""Other services' dialects, each translated once, at the edge: requests into ours, answers and errors out of ours.

Their routes are in `app/routes/`; nothing behind them knows which dialect a job came by.
"""
