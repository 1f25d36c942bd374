"""Requests from image files: the metadata that programs write into a file, as a request of ours.

reading.py        finds the program that wrote a file's texts
draft.py          what a program's texts say, in our fields, and what is left of it once it is checked
view.py           the answer
darkroom.py       files of this service, and its jobs
web_ui.py         AUTOMATIC1111's web UI and what writes as it does
web_ui_images.py  its ControlNets, and what other images beside the prompt files of this service name
invokeai.py       InvokeAI
draw_things.py    Draw Things
json_texts.py     texts that are JSON
"""
