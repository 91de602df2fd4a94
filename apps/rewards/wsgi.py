"""What gunicorn serves."""

from apps.rewards import create_app

app = create_app()
