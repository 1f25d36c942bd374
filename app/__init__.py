"""The HTTP side: validates requests and queues jobs. Knows fastapi and Pillow; neither torch nor diffusers."""
