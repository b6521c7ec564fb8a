"""Write a verdict's Markdown as a comment on a merge request, or into the comment that is there already.

    comment.py github|gitlab NUMBER FILE

The comment is found again by the marker in its first line. The token is in $TOKEN; where to is told by the variables
that GitHub's and GitLab's runners set. The testbed itself knows no token and no service.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

PAGE = 100
PAGES = 30
SECONDS = 30


def main(service: str, number: str, file: str) -> int:
    """Post or update; exit status 0, or 1 with the service's answer."""
    body = Path(file).read_text(encoding="utf-8")
    marker = body.split("\n", 1)[0]
    if not (marker.startswith("<!-- shadow-testbed:") and number.isdecimal()):
        sys.stderr.write(f"found {marker[:40]!r} and number {number!r}, expected a gate's comment\n")
        return 1
    comments, own = _places(service, number)
    try:
        there = _found(comments, marker)
        if there is None:
            _ask("POST", comments, {"body": body})
        else:
            _ask("PATCH" if service == "github" else "PUT", f"{own}/{there}", {"body": body})
    except urllib.error.URLError as refusal:
        sys.stderr.write(f"{comments}: {refusal}\n")
        return 1
    sys.stdout.write("comment written\n" if there is None else "comment brought up to date\n")
    return 0


def _places(service: str, number: str) -> tuple[str, str]:
    """Where the comments of the merge request are, and where one comment is by its number."""
    if service == "github":
        repository = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}"
        return f"{repository}/issues/{number}/comments", f"{repository}/issues/comments"
    project = urllib.parse.quote(os.environ["CI_PROJECT_ID"], safe="")
    notes = f"{os.environ['CI_API_V4_URL']}/projects/{project}/merge_requests/{number}/notes"
    return notes, notes


def _found(comments: str, marker: str) -> int | None:
    for page in range(1, PAGES + 1):
        listed = _ask("GET", f"{comments}?per_page={PAGE}&page={page}")
        if not isinstance(listed, list):
            return None
        for comment in listed:
            # only at its very beginning: somebody may quote it
            if str(comment.get("body", "")).startswith(marker):
                return int(comment["id"])
        if len(listed) < PAGE:
            return None
    return None


def _ask(method: str, url: str, document: dict[str, str] | None = None) -> object:
    request = urllib.request.Request(url, method=method)
    request.add_header("Authorization", f"Bearer {os.environ['TOKEN']}")
    request.add_header("Accept", "application/json")
    content = None
    if document is not None:
        request.add_header("Content-Type", "application/json")
        content = json.dumps(document).encode()
    with urllib.request.urlopen(request, content, timeout=SECONDS) as answer:
        return json.loads(answer.read() or b"null")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("github", "gitlab"):
        sys.exit("usage: comment.py github|gitlab NUMBER FILE")
    sys.exit(main(*sys.argv[1:]))
