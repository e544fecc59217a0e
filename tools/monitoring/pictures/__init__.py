"""Pictures of the dashboards, drawn from their JSON and what Prometheus answers.

They show how a dashboard is laid out and what it shows, where no Grafana can run. They are no
screenshots: Grafana draws more finely.
"""

from tools.monitoring.pictures.answers import Answers, ask, read_answers
from tools.monitoring.pictures.picture import draw

__all__ = ["Answers", "ask", "draw", "read_answers"]
